//! The schema: safe to apply twice, with `psql` as well as with the server, by an owner who is no superuser, and on a
//! project that has Supabase's roles and functions already.

use std::path::PathBuf;
use std::process::Command;

use sqlx::{AssertSqlSafe, ConnectOptions, Executor, PgConnection};
use wasel_db::cluster::{Cluster, ClusterOptions};
use wasel_testkit::{TestDb, meta};

use crate::binary::{Server, data_dir, succeed, wasel};

/// The files, in order.
fn files() -> Vec<PathBuf> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../db/migrations");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert!(files.len() >= 8);
    files
}

#[track_caller]
fn psql(url: &str, arguments: &[&str]) -> String {
    let output = Command::new("psql")
        .args([
            "--no-psqlrc",
            "--quiet",
            "--tuples-only",
            "--no-align",
            "--set",
            "ON_ERROR_STOP=1",
        ])
        .arg(url)
        .args(arguments)
        .env("PGOPTIONS", "-c client_min_messages=warning")
        .output()
        .expect("psql, of the same package as Postgres");
    assert!(
        output.status.success(),
        "psql {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

fn psql_all(url: &str) {
    for file in files() {
        psql(url, &["--file", file.to_str().unwrap()]);
    }
}

/// Everything the migrations make, as text.
async fn schema(connection: &mut PgConnection) -> Vec<String> {
    sqlx::query_scalar(
        "SELECT * FROM (
             SELECT format('column %s.%s.%s %s %s %s', table_schema, table_name, column_name, udt_name, is_nullable, column_default)
             FROM information_schema.columns WHERE table_schema IN ('public', 'wasel') AND table_name <> 'schema_migrations'
               AND table_name !~ '^change_log_\\d+$'
             UNION ALL
             SELECT format('policy %s %s %s %s %s %s', tablename, policyname, roles, cmd, qual, with_check) FROM pg_policies WHERE schemaname = 'public'
             UNION ALL
             SELECT format('index %s', indexdef) FROM pg_indexes WHERE schemaname IN ('public', 'wasel') AND tablename !~ '^(change_log_\\d+|schema_migrations)$'
             UNION ALL
             SELECT format('trigger %s', pg_get_triggerdef(t.oid)) FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
             WHERE NOT t.tgisinternal AND c.relnamespace = 'public'::regnamespace
             UNION ALL
             SELECT format('function %s %s %s', p.oid::regprocedure, md5(p.prosrc), p.prosecdef) FROM pg_proc p
             WHERE p.pronamespace IN ('wasel'::regnamespace, 'auth'::regnamespace)
             UNION ALL
             SELECT format('grant %s %s %s', table_name, grantee, privilege_type) FROM information_schema.table_privileges
             WHERE table_schema = 'public' AND grantee IN ('anon', 'authenticated', 'service_role', 'PUBLIC') AND table_name !~ '^change_log_\\d+$'
         ) t(line) ORDER BY line",
    )
    .fetch_all(connection)
    .await
    .unwrap()
}

fn assert_same(one: &[String], other: &[String], what: &str) {
    let only = |a: &[String], b: &[String]| {
        a.iter()
            .filter(|line| !b.contains(line))
            .cloned()
            .collect::<Vec<_>>()
    };
    let (left, right) = (only(one, other), only(other, one));
    assert!(
        left.is_empty() && right.is_empty(),
        "{what}\nonly before: {left:#?}\nonly after: {right:#?}"
    );
    assert!(one.len() > 400, "{}", one.len());
}

#[tokio::test]
async fn applied_twice_by_the_server_the_schema_stays_the_same() {
    let db = TestDb::empty().await;
    wasel_db::migrate(&db.options()).await.unwrap();
    let mut connection = db.connect().await;
    let first = schema(&mut connection).await;
    // As after a restore of the data without the record of what was applied.
    connection
        .execute("DELETE FROM wasel.schema_migrations")
        .await
        .unwrap();
    wasel_db::migrate(&db.options()).await.unwrap();
    wasel_db::migrate(&db.options()).await.unwrap();
    assert_same(&first, &schema(&mut connection).await, "applied twice");
}

#[tokio::test]
async fn two_nodes_may_migrate_at_once() {
    let db = TestDb::empty().await;
    let options = db.options();
    let all = futures_util::future::join_all((0..4).map(|_| wasel_db::migrate(&options))).await;
    all.into_iter().for_each(|result| result.unwrap());
}

#[tokio::test]
async fn applied_twice_with_psql_the_schema_is_what_the_server_makes() {
    let (by_psql, by_server) = (TestDb::empty().await, TestDb::new().await);
    psql_all(&by_psql.url());
    let first = schema(&mut by_psql.connect().await).await;
    psql_all(&by_psql.url());
    assert_same(
        &first,
        &schema(&mut by_psql.connect().await).await,
        "twice with psql",
    );
    assert_same(
        &first,
        &schema(&mut by_server.connect().await).await,
        "with psql and with the server",
    );
    // And the server goes on from there.
    wasel_db::migrate(&by_psql.options()).await.unwrap();
}

#[tokio::test]
async fn the_printed_schema_applies_with_psql() {
    let db = TestDb::empty().await;
    let folder = data_dir();
    let script = folder.path().join("schema.sql");
    std::fs::write(
        &script,
        succeed(&mut wasel(folder.path(), &["migrate", "--print"])),
    )
    .unwrap();
    psql(&db.url(), &["--file", script.to_str().unwrap()]);
    let by_server = TestDb::new().await;
    assert_same(
        &schema(&mut db.connect().await).await,
        &schema(&mut by_server.connect().await).await,
        "printed",
    );
}

/// A Postgres of this test's own, because roles belong to the whole of it.
struct Bare {
    cluster: Cluster,
    folder: tempfile::TempDir,
}

impl Bare {
    async fn start() -> Self {
        let folder = data_dir();
        let options = ClusterOptions {
            settings: vec![("fsync".to_owned(), "off".to_owned())],
            ..ClusterOptions::new(folder.path().join("bare"))
        };
        Self {
            cluster: Cluster::start(options).await.unwrap(),
            folder,
        }
    }

    async fn superuser(&self, database: &str) -> PgConnection {
        self.cluster
            .connect_options()
            .database(database)
            .connect()
            .await
            .unwrap()
    }

    fn url(&self, user: &str, database: &str) -> String {
        let url = self.cluster.url();
        let host = url.split_once('?').unwrap().1;
        format!("postgres://{user}@localhost/{database}?{host}")
    }

    /// Migrates as this owner, runs the server and sends a message through it.
    async fn works_for(&self, user: &str, database: &str) {
        let data = self.folder.path().join(format!("data-{user}"));
        let file = self.folder.path().join("tenants.toml");
        std::fs::write(
            &file,
            r#"
            [[organizations]]
            slug = "a"
            name = "A"
            [[organizations.users]]
            email = "agent@a.test"
            password = "a good password"
            role = "agent"
            [[organizations.channels]]
            kind = "whatsapp_cloud"
            name = "WhatsApp"
            waba_id = "1"
            phone_number_id = "100"
            display_phone_number = "+14155550100"
            access_token = "t"
            app_secret = "s"
            verify_token = "v"
            "#,
        )
        .unwrap();
        let url = self.url(user, database);
        succeed(wasel(&data, &["apply", file.to_str().unwrap()]).env("DATABASE_URL", &url));
        let token = succeed(
            wasel(&data, &["token", "--org", "a", "--email", "agent@a.test"])
                .env("DATABASE_URL", &url),
        );
        let server = Server::start(wasel(&data, &["serve"]).env("DATABASE_URL", &url));
        drop(rustls::crypto::ring::default_provider().install_default());
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let body = meta::change("100", meta::text("201001234567", "wamid.1", "hello")).to_string();
        let signed = http
            .post(format!("{}/api/webhooks/whatsapp", server.base))
            .header("x-hub-signature-256", meta::signature("s", body.as_bytes()));
        let response = signed.body(body).send().await.unwrap();
        assert_eq!(response.status(), 200, "{}", server.log());
        let list: serde_json::Value = http
            .get(format!("{}/v1/conversations", server.base))
            .bearer_auth(token.trim())
            .send()
            .await
            .unwrap()
            .json()
            .await
            .unwrap();
        assert_eq!(
            list["data"][0]["last_message"],
            "hello",
            "{list}\n{}",
            server.log()
        );
        let path = format!(
            "{}/v1/conversations/{}",
            server.base,
            list["data"][0]["id"].as_str().unwrap()
        );
        let changed = http
            .patch(path)
            .bearer_auth(token.trim())
            .json(&serde_json::json!({ "notes": "x" }))
            .send()
            .await
            .unwrap();
        assert_eq!(changed.status(), 200, "{}", server.log());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_who_is_no_superuser_but_may_make_roles_is_enough_whatever_the_name() {
    let bare = Bare::start().await;
    let mut superuser = bare.superuser("wasel").await;
    // One named as the schema is, which Postgres would look into first.
    for user in ["somebody", "wasel"] {
        superuser
            .execute(AssertSqlSafe(format!(
                "CREATE ROLE {user} LOGIN CREATEROLE"
            )))
            .await
            .unwrap();
        superuser
            .execute(AssertSqlSafe(format!(
                "CREATE DATABASE db_{user} OWNER {user}"
            )))
            .await
            .unwrap();
        bare.works_for(user, &format!("db_{user}")).await;
        psql_all(&bare.url(user, &format!("db_{user}")));
        let tables: Vec<String> = sqlx::query_scalar(
            "SELECT schemaname::text FROM pg_tables WHERE tablename = 'messages'",
        )
        .fetch_all(&mut bare.superuser(&format!("db_{user}")).await)
        .await
        .unwrap();
        assert_eq!(tables, ["public"], "{user}");
    }
    bare.cluster.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_supabase_project_the_roles_and_functions_that_are_there_stay_as_they_are() {
    let bare = Bare::start().await;
    let mut superuser = bare.superuser("wasel").await;
    // As Supabase sets a project up: the project's owner is no superuser, `auth` belongs to somebody else, and new
    // tables in `public` are open to everybody by default.
    for statement in [
        "CREATE ROLE anon NOLOGIN NOINHERIT",
        "CREATE ROLE authenticated NOLOGIN NOINHERIT",
        "CREATE ROLE service_role NOLOGIN NOINHERIT BYPASSRLS",
        "CREATE ROLE supabase_auth_admin NOINHERIT CREATEROLE LOGIN",
        "CREATE ROLE owner LOGIN CREATEROLE CREATEDB",
        "GRANT anon, authenticated, service_role TO owner",
        "CREATE DATABASE project OWNER owner",
    ] {
        superuser.execute(statement).await.unwrap();
    }
    let mut project = bare.superuser("project").await;
    for statement in [
        "CREATE SCHEMA auth AUTHORIZATION supabase_auth_admin",
        "GRANT USAGE ON SCHEMA auth TO anon, authenticated, service_role, owner",
        "CREATE FUNCTION auth.uid() RETURNS uuid LANGUAGE sql STABLE AS $$ SELECT coalesce(
             nullif(current_setting('request.jwt.claim.sub', true), ''),
             (nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub'))::uuid $$",
        "CREATE FUNCTION auth.role() RETURNS text LANGUAGE sql STABLE AS $$ SELECT nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'role' $$",
        "CREATE FUNCTION auth.jwt() RETURNS jsonb LANGUAGE sql STABLE AS $$ SELECT nullif(current_setting('request.jwt.claims', true), '')::jsonb $$",
        "ALTER FUNCTION auth.uid() OWNER TO supabase_auth_admin",
        "ALTER FUNCTION auth.role() OWNER TO supabase_auth_admin",
        "ALTER FUNCTION auth.jwt() OWNER TO supabase_auth_admin",
        "GRANT ALL ON SCHEMA public TO owner",
        "ALTER DEFAULT PRIVILEGES FOR ROLE owner IN SCHEMA public GRANT ALL ON TABLES TO anon, authenticated, service_role",
        "ALTER DEFAULT PRIVILEGES FOR ROLE owner IN SCHEMA public GRANT ALL ON FUNCTIONS TO anon, authenticated, service_role",
        "CREATE PUBLICATION supabase_realtime",
    ] {
        project.execute(statement).await.unwrap();
    }
    let auth = "SELECT array_agg(format('%s %s %s', p.proname, md5(p.prosrc), p.proowner::regrole) ORDER BY 1)
                FROM pg_proc p WHERE p.pronamespace = 'auth'::regnamespace";
    let before: Vec<String> = sqlx::query_scalar(auth)
        .fetch_one(&mut project)
        .await
        .unwrap();
    psql_all(&bare.url("owner", "project"));
    psql_all(&bare.url("owner", "project"));
    let after: Vec<String> = sqlx::query_scalar(auth)
        .fetch_one(&mut project)
        .await
        .unwrap();
    assert_eq!(before, after);
    bare.works_for("owner", "project").await;
    // The project's open defaults do not hold for ours.
    let open: Vec<String> = sqlx::query_scalar(
        "SELECT DISTINCT format('%s to %s', table_name, grantee) FROM information_schema.table_privileges
         WHERE table_schema = 'public' AND grantee = 'anon' AND table_name NOT LIKE 'change\\_log\\_%'",
    )
    .fetch_all(&mut project)
    .await
    .unwrap();
    assert!(open.is_empty(), "{open:?}");
    // A partition may be granted; its own row-level security lets nobody see anything.
    let bare_partitions: Vec<String> = sqlx::query_scalar(
        "SELECT relname::text FROM pg_class WHERE relname LIKE 'change\\_log\\_%' AND relkind = 'r' AND NOT (relrowsecurity AND relforcerowsecurity)",
    )
    .fetch_all(&mut project)
    .await
    .unwrap();
    assert!(bare_partitions.is_empty(), "{bare_partitions:?}");
    bare.cluster.stop().await.unwrap();
}
