//! Which tenant a request is about, and what the caller may be in it.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use uuid::Uuid;
use wasel_db::{Db, organizations, profiles};
use wasel_domain::{OrgId, UserId};

use super::caller::{AuthError, Role};

/// A change of somebody's rights counts within this time; it spares the queries of all requests between.
const CACHED_FOR: Duration = Duration::from_secs(2);
const MAX_CACHED: usize = 10_000;

/// A person's place in one tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Membership {
    pub org_id: OrgId,
    pub role: Role,
}

/// Chooses the tenant: the one the request names, else the one the token names, else the only one there is. A
/// super-admin of any tenant may name one they don't belong to; whether it exists is for the caller of this to check.
pub fn choose_org(
    memberships: &[Membership],
    requested: Option<OrgId>,
    claimed: Option<OrgId>,
) -> Result<Membership, AuthError> {
    let named = match (requested.or(claimed), memberships) {
        (Some(named), _) => named,
        (None, [only]) => return Ok(*only),
        (None, []) => {
            return Err(AuthError::not_a_member(
                "This user belongs to no organization.",
            ));
        }
        (None, _) => {
            return Err(AuthError::org_required(
                "This user belongs to several organizations: name one in X-Org-Id.",
            ));
        }
    };
    if memberships
        .iter()
        .any(|membership| membership.role == Role::SuperAdmin)
    {
        return Ok(Membership {
            org_id: named,
            role: Role::SuperAdmin,
        });
    }
    match memberships
        .iter()
        .find(|membership| membership.org_id == named)
    {
        Some(membership) => Ok(*membership),
        None if requested.is_some() => Err(AuthError::not_a_member(
            "This user is not a member of the organization named in X-Org-Id.",
        )),
        None => Err(AuthError::not_a_member(
            "This user is not a member of the organization named in the token.",
        )),
    }
}

/// A person's memberships, the oldest first.
pub(crate) async fn list(
    tx: &mut wasel_db::SystemTx,
    user: UserId,
) -> wasel_db::Result<Vec<Membership>> {
    profiles::list_of_user(tx, user)
        .await?
        .into_iter()
        .map(membership)
        .collect()
}

fn membership(profile: profiles::Profile) -> wasel_db::Result<Membership> {
    let role = Role::of_profile(&profile.role).ok_or_else(|| wasel_db::Error::Inconsistent {
        table: "profiles",
        column: "role",
        row: profile.id.to_string(),
    })?;
    Ok(Membership {
        org_id: OrgId(profile.org_id),
        role,
    })
}

/// Tenant, role and limits of a caller.
#[derive(Clone, Debug)]
pub(crate) struct Standing {
    pub org_id: OrgId,
    pub role: Role,
    /// The channels an agent is limited to; `None` means all.
    pub channel_limits: Option<Vec<Uuid>>,
}

/// What a standing depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Question {
    /// `None` for the service-role key.
    pub user: Option<UserId>,
    pub requested: Option<OrgId>,
    pub claimed: Option<OrgId>,
}

/// Looks standings up and remembers those that exist for a moment. Refusals are not remembered: a new member gets in
/// at once.
#[derive(Debug, Default)]
pub(crate) struct StandingCache {
    entries: Mutex<HashMap<Question, (Instant, Standing)>>,
}

impl StandingCache {
    pub(crate) async fn find(&self, db: &Db, question: Question) -> Result<Standing, AuthError> {
        if let Some((at, standing)) = self.lock().get(&question)
            && at.elapsed() < CACHED_FOR
        {
            return Ok(standing.clone());
        }
        // From before the query: what changes while it runs is not hidden for longer than it should be.
        let asked_at = Instant::now();
        let standing = look_up(db, question).await?;
        let mut entries = self.lock();
        if entries.len() >= MAX_CACHED {
            entries.retain(|_, (at, _)| at.elapsed() < CACHED_FOR);
        }
        if entries.len() < MAX_CACHED {
            entries.insert(question, (asked_at, standing.clone()));
        }
        Ok(standing)
    }

    /// What was found for that person is asked anew.
    pub(crate) fn forget(&self, user: UserId) {
        self.lock()
            .retain(|question, _| question.user != Some(user));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Question, (Instant, Standing)>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn look_up(db: &Db, question: Question) -> Result<Standing, AuthError> {
    let (mut tx, membership, belongs) = match (question.user, question.requested) {
        (Some(user), requested) => {
            let mut tx = db.system().await?;
            let memberships = list(&mut tx, user).await?;
            let chosen = choose_org(&memberships, requested, question.claimed)?;
            let belongs = memberships
                .iter()
                .any(|membership| membership.org_id == chosen.org_id);
            (tx, chosen, belongs)
        }
        (None, Some(org_id)) => (
            db.system().await?,
            Membership {
                org_id,
                role: Role::Service,
            },
            false,
        ),
        // A server of a one-tenant installation knows of no tenants (S2's functions send no X-Org-Id).
        (None, None) => {
            let mut tx = db.system().await?;
            let Some(org_id) = organizations::find_only(&mut tx).await? else {
                return Err(AuthError::org_required(
                    "The service-role key belongs to no organization: name one in X-Org-Id.",
                ));
            };
            let service = Membership {
                org_id,
                role: Role::Service,
            };
            (tx, service, true)
        }
    };
    if !belongs
        && organizations::find(&mut tx, membership.org_id)
            .await?
            .is_none()
    {
        return Err(AuthError::not_a_member(
            "There is no organization with the id named in X-Org-Id or in the token.",
        ));
    }
    let channel_limits = match (membership.role, question.user) {
        (Role::Agent, Some(user)) => {
            let channels = profiles::list_channel_limits(&mut tx, membership.org_id, user).await?;
            Some(channels).filter(|channels| !channels.is_empty())
        }
        _ => None,
    };
    Ok(Standing {
        org_id: membership.org_id,
        role: membership.role,
        channel_limits,
    })
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    fn org(n: u128) -> OrgId {
        OrgId(Uuid::from_u128(n))
    }

    fn member(n: u128, role: Role) -> Membership {
        Membership {
            org_id: org(n),
            role,
        }
    }

    #[test]
    fn the_tenant_is_the_one_named_and_only_members_get_in() {
        let one = [member(1, Role::Agent)];
        let two = [member(1, Role::Owner), member(2, Role::Viewer)];
        let boss = [member(1, Role::Admin), member(2, Role::SuperAdmin)];
        let none: [Membership; 0] = [];
        let forbidden = Err((StatusCode::FORBIDDEN, "not_a_member"));
        let unclear = Err((StatusCode::BAD_REQUEST, "org_required"));

        // (what, memberships, X-Org-Id, token's org, expected)
        type Case<'a> = (
            &'a str,
            &'a [Membership],
            Option<u128>,
            Option<u128>,
            Result<(u128, Role), (StatusCode, &'static str)>,
        );
        let cases: [Case; 16] = [
            ("only one", &one, None, None, Ok((1, Role::Agent))),
            (
                "named in the header",
                &one,
                Some(1),
                None,
                Ok((1, Role::Agent)),
            ),
            (
                "named in the token",
                &one,
                None,
                Some(1),
                Ok((1, Role::Agent)),
            ),
            ("foreign in the header", &one, Some(9), None, forbidden),
            ("foreign in the token", &one, None, Some(9), forbidden),
            (
                "a foreign header is not saved by the token",
                &one,
                Some(9),
                Some(1),
                forbidden,
            ),
            ("several, none named", &two, None, None, unclear),
            (
                "several, header",
                &two,
                Some(2),
                None,
                Ok((2, Role::Viewer)),
            ),
            ("several, token", &two, None, Some(2), Ok((2, Role::Viewer))),
            (
                "the header goes before the token",
                &two,
                Some(1),
                Some(2),
                Ok((1, Role::Owner)),
            ),
            ("no membership", &none, None, None, forbidden),
            ("no membership, named", &none, Some(1), Some(1), forbidden),
            (
                "super-admin, foreign header",
                &boss,
                Some(9),
                None,
                Ok((9, Role::SuperAdmin)),
            ),
            (
                "super-admin, foreign token",
                &boss,
                None,
                Some(9),
                Ok((9, Role::SuperAdmin)),
            ),
            (
                "super-admin in a tenant where they are less",
                &boss,
                Some(1),
                None,
                Ok((1, Role::SuperAdmin)),
            ),
            (
                "super-admin of several, none named",
                &boss,
                None,
                None,
                unclear,
            ),
        ];
        for (what, memberships, header, claim, expected) in cases {
            let got = choose_org(memberships, header.map(org), claim.map(org))
                .map(|chosen| (chosen.org_id, chosen.role))
                .map_err(|error| (error.status, error.code));
            assert_eq!(got, expected.map(|(n, role)| (org(n), role)), "{what}");
        }
    }

    #[test]
    fn a_refusal_for_the_header_names_the_header() {
        let error = choose_org(&[member(1, Role::Owner)], Some(org(9)), None).unwrap_err();
        assert!(
            error.message.contains("X-Org-Id") && error.message.contains("not a member"),
            "{}",
            error.message
        );
    }
}
