//! What a request meets after the database was away for a moment.

use wasel_db::{Db, PoolSizes, TenantClaims};
use wasel_domain::OrgId;
use wasel_testkit::{Chaos, TestDb};

#[tokio::test]
async fn connections_that_died_in_the_pool_cost_no_request() {
    let database = TestDb::new().await;
    let chaos = Chaos::before_database(&database).await;
    let db = Db::new(
        chaos.database_options(&database),
        PoolSizes {
            tenants: 5,
            system: 5,
            ingest: 1,
        },
    );
    let claims = TenantClaims {
        org_id: OrgId::SYSTEM,
        user_id: None,
        role: "owner".to_owned(),
    };
    for _ in 0..3 {
        // All the pools can hold, at once.
        let mut open = Vec::new();
        for _ in 0..5 {
            open.push((
                db.tenant(&claims).await.unwrap(),
                db.system().await.unwrap(),
            ));
        }
        for (tenant, system) in open {
            tenant.commit().await.unwrap();
            system.commit().await.unwrap();
        }
        chaos.cut();
        let mut tx = db
            .tenant(&claims)
            .await
            .expect("the first request after it is served");
        let role: String = sqlx::query_scalar("SELECT current_user::text")
            .fetch_one(&mut *tx)
            .await
            .unwrap();
        assert_eq!(role, "authenticated");
        tx.commit().await.unwrap();
        db.system()
            .await
            .expect("and the first job runs")
            .commit()
            .await
            .unwrap();
    }
    chaos.refuse();
    let error = db
        .system()
        .await
        .expect_err("a database that is away is told from a dead connection");
    assert!(error.is_unavailable(), "{error}");
}
