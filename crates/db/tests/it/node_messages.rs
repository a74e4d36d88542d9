//! What the servers on one database tell each other.

use std::time::Duration;

use sqlx::Connection;
use uuid::Uuid;
use wasel_db::node_messages::{self, PageSize};
use wasel_db::{Db, PoolSizes};
use wasel_testkit::TestDb;

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_page_is_bounded_in_bytes_and_brings_nothing_that_is_stale() {
    let test = TestDb::new().await;
    let db = Db::new(test.options(), PoolSizes::default());
    let (one, two) = (Uuid::from_u128(1), Uuid::from_u128(2));
    let body = |kind: &str| format!("0000{kind}{}", "x".repeat(996 - kind.len())).into_bytes();
    let mut tx = db.system().await.unwrap();
    let broadcasts = vec![body("said"); 5];
    node_messages::insert(&mut tx, one, 1, &broadcasts)
        .await
        .unwrap();
    node_messages::insert(&mut tx, two, 1, &[body("kept"), body("said")])
        .await
        .unwrap();
    tx.commit().await.unwrap();

    let page = async |after: [i64; 2], bytes: i64| {
        let mut tx = db.system().await.unwrap();
        let size = PageSize { messages: 4, bytes };
        let stale: (&[u8], Duration) = (b"said", MINUTE);
        let nodes = [one, two];
        let messages = node_messages::list_after(&mut tx, &nodes, &after, size, stale).await;
        tx.commit().await.unwrap();
        let messages = messages.unwrap().into_iter();
        messages
            .map(|it| (it.node_id, it.seq, it.body.map(|body| body.len())))
            .collect::<Vec<_>>()
    };
    let whole = Some(1000_usize);
    let expected = [
        (one, 1_i64, whole),
        (one, 2, whole),
        (two, 1, whole),
        (two, 2, whole),
    ];
    assert_eq!(page([0, 0], 1500).await, expected);
    // One that is larger than a page comes all the same, and the number of messages is bounded, too.
    assert_eq!(page([4, 2], 1).await, [(one, 5_i64, whole)]);
    assert_eq!(page([0, 2], 1_000_000).await.len(), 4);

    let mut connection = test.connect().await;
    sqlx::query("UPDATE wasel.node_messages SET created_at = now() - interval '2 minutes'")
        .execute(&mut connection)
        .await
        .unwrap();
    connection.close().await.unwrap();
    let expected = [
        (one, 2_i64, None),
        (one, 3, None),
        (one, 4, None),
        (one, 5, None),
        (two, 1, whole),
        (two, 2, None),
    ];
    assert_eq!(page([1, 0], 1500).await, expected);
}
