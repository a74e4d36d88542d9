//! The change feed: in order, none missing, resumable, one tenant's only.

use futures_util::StreamExt;
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use uuid::Uuid;
use wasel_testkit::{Answer, Org, TestApp, meta, wait_until};

/// Where the feed is once it has caught up with what was written.
async fn position(app: &TestApp, org: &Org) -> i64 {
    let written = app
        .count("SELECT coalesce(max(seq), 0) FROM change_log")
        .await;
    wait_until("the feed catches up", async || {
        let now = app.get(org.owner(), "/v1/changes").await.expect(200)["next_cursor"]
            .as_i64()
            .unwrap();
        (now >= written).then_some(now)
    })
    .await
}

/// Inserts a contact by SQL of somebody else's, as another program would.
async fn insert(connection: &mut PgConnection, org: &Org, name: &str) {
    sqlx::query("INSERT INTO contacts (org_id, id, name) VALUES ($1, $2, $3)")
        .bind(org.id)
        .bind(Uuid::now_v7())
        .bind(name)
        .execute(connection)
        .await
        .unwrap();
}

fn names(page: &Value) -> Vec<String> {
    page["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|change| {
            change["record"]["name"]
                .as_str()
                .unwrap_or_default()
                .to_owned()
        })
        .collect()
}

#[tokio::test]
async fn a_reader_gets_every_row_in_order_although_one_commits_late() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    let start = position(&app, &org).await;

    // A writer takes its number first and commits last.
    let mut late = app.db.connect().await;
    let mut late = late.begin().await.unwrap();
    insert(&mut late, &org, "late").await;
    // Meanwhile others commit, all at once.
    let mut writers = Vec::new();
    for writer in 0..8 {
        let (db, org_id) = (app.db.clone(), org.id);
        writers.push(tokio::spawn(async move {
            let mut connection = db.connect().await;
            for n in 0..25 {
                sqlx::query("INSERT INTO contacts (org_id, id, name) VALUES ($1, $2, $3)")
                    .bind(org_id)
                    .bind(Uuid::now_v7())
                    .bind(format!("{writer}-{n}"))
                    .execute(&mut connection)
                    .await
                    .unwrap();
            }
        }));
    }
    // A reader follows all the while.
    let reader = async {
        let (mut after, mut seqs, mut all) = (start, Vec::new(), Vec::new());
        while all.len() < 201 {
            let page = app
                .get(
                    org.owner(),
                    &format!("/v1/changes?after={after}&limit=7&wait=5&tables=contacts"),
                )
                .await
                .expect(200);
            after = page["next_cursor"].as_i64().unwrap();
            seqs.extend(
                page["data"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|change| change["seq"].as_i64().unwrap()),
            );
            all.extend(names(&page));
        }
        (seqs, all)
    };
    let writing = async {
        for writer in writers {
            writer.await.unwrap();
        }
        insert(&mut late, &org, "later").await;
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        late.commit().await.unwrap();
    };
    let ((seqs, mut all), ()) = tokio::join!(reader, writing);
    assert!(
        seqs.windows(2).all(|pair| pair[0] < pair[1]),
        "in order: {seqs:?}"
    );
    assert_eq!(all[0], "late", "it had the first number");
    // The last one was taken by the transaction that took the first: the reader may have ended before it.
    all.retain(|name| name != "later");
    all.sort();
    all.dedup();
    assert!(all.len() >= 200, "none missing: {}", all.len());
    let rest = wait_until("the feed settles", async || {
        let page = app
            .get(
                org.owner(),
                &format!("/v1/changes?after={start}&limit=1000"),
            )
            .await
            .expect(200);
        (page["data"].as_array().unwrap().len() == 202).then_some(page)
    })
    .await;
    assert_eq!(names(&rest).last().unwrap(), "later");
}

#[tokio::test]
async fn a_rolled_back_row_never_shows_and_holds_nobody_up() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    let start = position(&app, &org).await;
    let mut connection = app.db.connect().await;
    let mut gone = connection.begin().await.unwrap();
    insert(&mut gone, &org, "rolled back").await;
    gone.rollback().await.unwrap();
    insert(&mut connection, &org, "kept").await;
    let page = app
        .get(org.owner(), &format!("/v1/changes?after={start}&wait=30"))
        .await
        .expect(200);
    assert_eq!(names(&page), ["kept"]);
}

#[tokio::test]
async fn a_message_shows_as_rows_of_its_tables_and_only_to_its_tenant() {
    let app = TestApp::start().await;
    let (a, b) = (app.org("a").await, app.org("b").await);
    let (at_a, at_b) = (position(&app, &a).await, position(&app, &b).await);
    app.meta_webhook(
        &a,
        &meta::change(
            &a.phone_number_id,
            meta::text("201001234567", "wamid.1", "hello"),
        ),
    )
    .await
    .expect(200);
    let page = wait_until("the rows", async || {
        let page = app
            .get(a.owner(), &format!("/v1/changes?after={at_a}"))
            .await
            .expect(200);
        (!page["data"].as_array().unwrap().is_empty()).then_some(page)
    })
    .await;
    let of = |table: &str| -> Vec<&Value> {
        page["data"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|change| change["table"] == table)
            .collect()
    };
    assert_eq!(of("messages").len(), 1, "{page:#}");
    assert_eq!(of("messages")[0]["op"], "INSERT");
    assert_eq!(of("messages")[0]["record"]["body"], "hello");
    assert!(!of("conversations").is_empty());
    let only = app
        .get(
            a.owner(),
            &format!("/v1/changes?after={at_a}&tables=messages"),
        )
        .await
        .expect(200);
    assert_eq!(only["data"].as_array().unwrap().len(), 1);
    let of_b = app
        .get(b.owner(), &format!("/v1/changes?after={at_b}"))
        .await
        .expect(200);
    assert_eq!(of_b["data"], json!([]));
    assert!(
        of_b["next_cursor"].as_i64() >= page["next_cursor"].as_i64(),
        "it moves past what is not theirs"
    );

    // An update and a deletion.
    let after = page["next_cursor"].as_i64().unwrap();
    sqlx::query("DELETE FROM messages")
        .execute(&app.owner)
        .await
        .unwrap();
    let page = app
        .get(
            a.owner(),
            &format!("/v1/changes?after={after}&tables=messages&wait=30"),
        )
        .await
        .expect(200);
    assert_eq!(page["data"][0]["op"], "DELETE");
    assert_eq!(page["data"][0]["old_record"]["body"], "hello");
    assert_eq!(page["data"][0]["record"], Value::Null);
}

#[tokio::test]
async fn server_sent_events_go_on_where_the_last_connection_ended() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    let start = position(&app, &org).await;
    let mut connection = app.db.connect().await;
    insert(&mut connection, &org, "one").await;
    let open = async |last: i64| {
        let request = app
            .request(Method::GET, "/v1/changes")
            .bearer_auth(org.owner());
        let response = request
            .header("accept", "text/event-stream")
            .header("last-event-id", last.to_string())
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), 200);
        assert!(
            response.headers()["content-type"]
                .to_str()
                .unwrap()
                .starts_with("text/event-stream")
        );
        response.bytes_stream()
    };
    /// Reads events until there are this many: (id, name of the contact).
    async fn read(
        stream: &mut (impl futures_util::Stream<Item = reqwest::Result<impl AsRef<[u8]>>> + Unpin),
        count: usize,
    ) -> Vec<(i64, String)> {
        let mut text = String::new();
        while text.matches("\n\n").count() < count {
            let bytes = tokio::time::timeout(wasel_testkit::PATIENCE, stream.next())
                .await
                .unwrap()
                .unwrap()
                .unwrap();
            text.push_str(std::str::from_utf8(bytes.as_ref()).unwrap());
        }
        text.split("\n\n")
            .filter(|event| event.contains("data:"))
            .map(|event| {
                let field = |name: &str| {
                    event
                        .lines()
                        .find_map(|line| line.strip_prefix(name))
                        .unwrap()
                        .trim()
                        .to_owned()
                };
                assert_eq!(field("event:"), "change");
                let data: Value = serde_json::from_str(&field("data:")).unwrap();
                (
                    field("id:").parse().unwrap(),
                    data["record"]["name"].as_str().unwrap().to_owned(),
                )
            })
            .collect()
    }
    let mut stream = Box::pin(open(start).await);
    let first = read(&mut stream, 1).await;
    assert_eq!(first[0].1, "one");
    insert(&mut connection, &org, "two").await;
    assert_eq!(read(&mut stream, 1).await[0].1, "two");
    drop(stream);
    insert(&mut connection, &org, "three").await;
    let mut stream = Box::pin(open(first[0].0).await);
    let rest: Vec<String> = read(&mut stream, 2)
        .await
        .into_iter()
        .map(|(_, name)| name)
        .collect();
    assert_eq!(rest, ["two", "three"]);
}

#[tokio::test]
async fn a_position_older_than_what_is_kept_is_gone_and_says_what_to_do() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    let mut connection = app.db.connect().await;
    for name in ["one", "two", "three"] {
        insert(&mut connection, &org, name).await;
    }
    let seq: i64 = sqlx::query_scalar("SELECT max(seq) FROM change_log")
        .fetch_one(&app.owner)
        .await
        .unwrap();
    sqlx::query("DELETE FROM change_log WHERE seq < $1")
        .bind(seq)
        .execute(&app.owner)
        .await
        .unwrap();
    let gone = app
        .get(org.owner(), &format!("/v1/changes?after={}", seq - 2))
        .await
        .expect(410);
    assert_eq!(gone["error"]["code"], "feed_expired");
    app.get(org.owner(), &format!("/v1/changes?after={}", seq - 1))
        .await
        .expect(200);
    app.get(org.owner(), "/v1/changes?after=-1")
        .await
        .expect(400);
    app.get(org.owner(), "/v1/changes?limit=5000")
        .await
        .expect(400);
    Answer::of(app.request(Method::GET, "/v1/changes"))
        .await
        .expect(401);
}

#[tokio::test]
async fn a_second_node_sees_what_the_first_one_stored() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    let other = TestApp::builder()
        .on(app.db.clone())
        .with_simulator(app.simulator.clone())
        .start()
        .await;
    let start = position(&other, &org).await;
    app.meta_webhook(
        &org,
        &meta::change(
            &org.phone_number_id,
            meta::text("201001234567", "wamid.1", "hello"),
        ),
    )
    .await
    .expect(200);
    let page = other
        .get(
            org.owner(),
            &format!("/v1/changes?after={start}&tables=messages&wait=30"),
        )
        .await
        .expect(200);
    assert_eq!(page["data"][0]["record"]["body"], "hello");
}
