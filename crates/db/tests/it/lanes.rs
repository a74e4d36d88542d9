//! Reading the outbox lane by lane, from where the last claim ended.

use std::time::Duration;

use uuid::Uuid;
use wasel_db::outbox::claim::{self, Lane, Leased, Want};
use wasel_db::outbox::lanes::LaneReader;
use wasel_db::{Db, PoolSizes};
use wasel_testkit::TestDb;

struct Stage {
    /// Kept until the end.
    _test: TestDb,
    db: Db,
    maker: sqlx::PgConnection,
}

fn lane(n: u128) -> Lane {
    Lane {
        org_id: Uuid::from_u128(n),
        channel_id: Uuid::from_u128(n),
        lane: Uuid::nil(),
    }
}

impl Stage {
    async fn new() -> Self {
        let test = TestDb::new().await;
        let mut maker = test.connect().await;
        // The queue's rows alone.
        sqlx::query("SET session_replication_role = replica")
            .execute(&mut maker)
            .await
            .unwrap();
        Self {
            db: Db::new(test.options(), PoolSizes::default()),
            _test: test,
            maker,
        }
    }

    /// Message `id` of lane `n` is asked for.
    async fn add(&mut self, n: u128, priority: i16, id: u128) {
        sqlx::query(
            "INSERT INTO outbox (org_id, message_id, channel_id, conversation_id, priority, due_at)
             VALUES ($1, $2, $3, $2, $4, NULL)",
        )
        .bind(lane(n).org_id)
        .bind(Uuid::from_u128(id))
        .bind(lane(n).channel_id)
        .bind(priority)
        .execute(&mut self.maker)
        .await
        .unwrap();
    }

    async fn read(&self, reader: &mut LaneReader) -> Vec<Lane> {
        let mut tx = self.db.system().await.unwrap();
        let lanes = reader.read(&mut tx).await.unwrap();
        tx.commit().await.unwrap();
        lanes
    }

    /// Takes up to `count` messages of each lane.
    async fn claim(&self, reader: &mut LaneReader, lanes: &[Lane], count: i32) -> Vec<Leased> {
        let want = |lane: &Lane| Want {
            lane: *lane,
            count,
            after: reader.cursor(*lane),
        };
        let wants: Vec<Want> = lanes.iter().map(want).collect();
        let mut tx = self.db.system().await.unwrap();
        let rows = claim::lock_next(&mut tx, Uuid::nil(), Duration::from_secs(60), &wants)
            .await
            .unwrap();
        tx.commit().await.unwrap();
        reader.took(&rows);
        rows
    }
}

#[tokio::test]
async fn lanes_that_come_up_before_between_and_behind_the_known_ones_are_found() {
    let mut stage = Stage::new().await;
    let mut reader = LaneReader::default();
    for n in [3, 5, 7] {
        stage.add(n, 5, 1).await;
        stage.add(n, 5, 2).await;
    }
    let lanes = stage.read(&mut reader).await;
    assert_eq!(lanes, [lane(3), lane(5), lane(7)]);
    assert_eq!(stage.claim(&mut reader, &lanes, 1).await.len(), 3);
    // Lane 5 is empty from now on.
    stage.claim(&mut reader, &[lane(5)], 1).await;
    for n in [1, 2, 4, 6, 8] {
        stage.add(n, 5, 1).await;
    }
    // One of each gap at a time: 1 and 2 lie in the same.
    let mut found = stage.read(&mut reader).await;
    for _ in 0..2 {
        assert!(
            found.contains(&lane(4)) && found.contains(&lane(6)),
            "{found:?}"
        );
        found = stage.read(&mut reader).await;
    }
    assert_eq!(found, [1, 2, 3, 4, 6, 7, 8].map(lane));
    // And it fills again.
    stage.add(5, 5, 3).await;
    assert!(stage.read(&mut reader).await.contains(&lane(5)));
}

#[tokio::test]
async fn what_comes_to_lie_before_the_place_reached_is_found_when_asked_for_and_by_itself() {
    let mut stage = Stage::new().await;
    let mut reader = LaneReader::default();
    for id in [10, 11, 12] {
        stage.add(1, 5, id).await;
    }
    let lanes = stage.read(&mut reader).await;
    assert_eq!(stage.claim(&mut reader, &lanes, 2).await.len(), 2);
    // More urgent than what was taken last.
    stage.add(1, 1, 20).await;
    let next = reader.cursor(lane(1));
    reader.look_behind();
    let mut asked = 0;
    while reader.cursor(lane(1)) == next {
        stage.read(&mut reader).await;
        asked += 1;
        assert!(asked < 1000, "the place is never given up");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let rows = stage.claim(&mut reader, &lanes, 1).await;
    assert_eq!(rows[0].message_id, Uuid::from_u128(20));
    // Put off, and ready again: nobody says so.
    stage.add(1, 1, 15).await;
    let mut found = Vec::new();
    for _ in 0..1000 {
        stage.read(&mut reader).await;
        found = stage.claim(&mut reader, &lanes, 1).await;
        if found
            .iter()
            .any(|row| row.message_id == Uuid::from_u128(15))
        {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(!found.is_empty(), "it was never found");
}
