//! The private cluster, with a real Postgres. Every test has a data directory of its own.
//!
//! Started as root these tests run Postgres under the system's `postgres` user, as the server
//! does; started by anybody else, under that user.

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use sqlx::{ConnectOptions, Connection, PgConnection};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};
use wasel_db::cluster::{Cluster, ClusterError, ClusterOptions};

/// For things that happen at once on an idle machine.
const GENEROUS: Duration = Duration::from_secs(60);

/// A folder which every user can pass through, so that a data directory can be made below it.
fn open_folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    folder
}

/// A folder as a server makes its data directory: closed to everybody else.
fn private_folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o700)).unwrap();
    folder
}

fn options(data_dir: &Path) -> ClusterOptions {
    ClusterOptions {
        startup_timeout: GENEROUS,
        ..ClusterOptions::new(data_dir)
    }
}

/// Starts once a dropped cluster, which is stopped in the background, has let go of the lock.
async fn start_when_free(data_dir: &Path) -> Cluster {
    let deadline = Instant::now() + GENEROUS;
    loop {
        match Cluster::start(options(data_dir)).await {
            Err(ClusterError::Locked { .. }) if Instant::now() < deadline => {
                sleep(Duration::from_millis(5)).await;
            }
            result => return result.unwrap(),
        }
    }
}

async fn connect(cluster: &Cluster) -> PgConnection {
    cluster.connect_options().connect().await.unwrap()
}

/// Connects as soon as that works again.
async fn reconnect(cluster: &Cluster) -> PgConnection {
    let deadline = Instant::now() + GENEROUS;
    loop {
        match cluster.connect_options().connect().await {
            Ok(connection) => return connection,
            Err(error) => assert!(Instant::now() < deadline, "never healed: {error}"),
        }
        sleep(Duration::from_millis(10)).await;
    }
}

async fn write_row(connection: &mut PgConnection, n: i32) {
    sqlx::query("CREATE TABLE IF NOT EXISTS kept (n int PRIMARY KEY)")
        .execute(&mut *connection)
        .await
        .unwrap();
    sqlx::query("INSERT INTO kept VALUES ($1)")
        .bind(n)
        .execute(connection)
        .await
        .unwrap();
}

async fn rows(connection: &mut PgConnection) -> Vec<i32> {
    sqlx::query_scalar("SELECT n FROM kept ORDER BY n")
        .fetch_all(connection)
        .await
        .unwrap()
}

async fn setting(connection: &mut PgConnection, name: &str) -> String {
    sqlx::query_scalar("SELECT current_setting($1)")
        .bind(name)
        .fetch_one(connection)
        .await
        .unwrap()
}

fn pid_file(data_dir: &Path) -> PathBuf {
    data_dir.join("postgres/postmaster.pid")
}

fn postmaster_pid(data_dir: &Path) -> Pid {
    let text = fs::read_to_string(pid_file(data_dir)).unwrap();
    Pid::from_raw(text.lines().next().unwrap().parse().unwrap())
}

/// Not a server run by a test, but the server that tests kill: this program again, running only
/// this function, which then holds a cluster until it is killed.
#[tokio::test]
#[ignore = "run by other tests as a process of its own"]
async fn a_server_to_be_killed() {
    let Some(data_dir) = std::env::var_os("WASEL_TEST_DATA_DIR") else {
        return;
    };
    match Cluster::start(options(Path::new(&data_dir))).await {
        Ok(cluster) => {
            println!("ready");
            sleep(Duration::from_secs(600)).await;
            cluster.stop().await.unwrap();
        }
        Err(error) => println!("failed: {error}"),
    }
}

/// Starts [`a_server_to_be_killed`], as that user if one is given, and returns it with the first
/// word it has to say.
fn spawn_server(data_dir: &Path, uid: Option<u32>) -> (Child, String) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "cluster::a_server_to_be_killed"])
        .args(["--ignored", "--nocapture"])
        .env("WASEL_TEST_DATA_DIR", data_dir)
        .current_dir("/")
        .stdout(Stdio::piped());
    if let Some(uid) = uid {
        command.uid(uid).gid(uid);
    }
    let mut server = command.spawn().unwrap();
    let mut output = BufReader::new(server.stdout.take().unwrap());
    let said = output
        .by_ref()
        .lines()
        .map(|line| line.unwrap())
        .find(|line| line.contains("ready") || line.contains("failed: "))
        .expect("the server ended without a word");
    // Kept open, for whatever else it says.
    server.stdout = Some(output.into_inner());
    (server, said)
}

fn kill_server(mut server: Child) {
    server.kill().unwrap();
    server.wait().unwrap();
}

#[tokio::test]
async fn the_first_start_makes_a_private_and_durable_cluster() {
    let data_dir = private_folder();
    let cluster = Cluster::start(options(data_dir.path())).await.unwrap();
    let mut connection = connect(&cluster).await;

    for (name, value) in [
        ("listen_addresses", ""),
        ("unix_socket_permissions", "0700"),
        ("fsync", "on"),
        ("synchronous_commit", "on"),
        ("data_checksums", "on"),
        ("server_encoding", "UTF8"),
        ("lc_collate", "C"),
        ("jit", "off"),
    ] {
        assert_eq!(setting(&mut connection, name).await, value, "{name}");
    }
    let version = setting(&mut connection, "server_version").await;
    assert!(version.starts_with(&cluster.version().text), "{version}");
    assert!(cluster.version().major >= 15);

    for folder in ["postgres", "run"] {
        let found = fs::metadata(data_dir.path().join(folder)).unwrap();
        assert_eq!(found.mode() & 0o777, 0o700, "{folder}");
    }
    let owner = fs::metadata(data_dir.path().join("postgres"))
        .unwrap()
        .uid();
    assert_ne!(owner, 0, "Postgres refuses to run as root");
    let data_dir_mode = fs::metadata(data_dir.path()).unwrap().mode();
    assert_eq!(data_dir_mode & 0o007, 0, "others may not look in");

    connection.close().await.unwrap();
    cluster.stop().await.unwrap();
    assert!(!pid_file(data_dir.path()).exists());
}

#[tokio::test]
async fn the_url_leads_to_the_same_database() {
    let data_dir = private_folder();
    let cluster = Cluster::start(options(data_dir.path())).await.unwrap();
    let mut connection = PgConnection::connect(&cluster.url()).await.unwrap();
    let database: String = sqlx::query_scalar("SELECT current_database()")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(database, "wasel");
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn settings_given_by_the_operator_count_but_cannot_open_the_cluster() {
    let data_dir = private_folder();
    let cluster = Cluster::start(ClusterOptions {
        settings: vec![
            ("work_mem".to_owned(), "7MB".to_owned()),
            ("max_connections".to_owned(), "33".to_owned()),
            ("listen_addresses".to_owned(), "*".to_owned()),
        ],
        ..options(data_dir.path())
    })
    .await
    .unwrap();
    let mut connection = connect(&cluster).await;
    assert_eq!(setting(&mut connection, "work_mem").await, "7MB");
    assert_eq!(setting(&mut connection, "max_connections").await, "33");
    assert_eq!(setting(&mut connection, "listen_addresses").await, "");
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn upper_and_lower_case_work_beyond_ascii() {
    let data_dir = private_folder();
    let cluster = Cluster::start(options(data_dir.path())).await.unwrap();
    let mut connection = connect(&cluster).await;
    let (lower, matched): (String, bool) =
        sqlx::query_as("SELECT lower('ÉCLAIR'), 'Ünal' ILIKE 'ü%'")
            .fetch_one(&mut connection)
            .await
            .unwrap();
    assert_eq!((lower.as_str(), matched), ("éclair", true));
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn a_second_start_finds_the_data_of_the_first() {
    let data_dir = private_folder();
    let cluster = Cluster::start(options(data_dir.path())).await.unwrap();
    write_row(&mut connect(&cluster).await, 1).await;
    cluster.stop().await.unwrap();

    let cluster = Cluster::start(options(data_dir.path())).await.unwrap();
    assert_eq!(rows(&mut connect(&cluster).await).await, [1]);
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn stopping_does_not_wait_for_open_connections() {
    let data_dir = private_folder();
    let cluster = Cluster::start(options(data_dir.path())).await.unwrap();
    let mut open = connect(&cluster).await;
    sqlx::query("BEGIN").execute(&mut open).await.unwrap();
    let pid = postmaster_pid(data_dir.path());
    cluster.stop().await.unwrap();
    assert!(kill(pid, None).is_err(), "it has ended and was reaped");
}

#[tokio::test]
async fn a_second_server_is_refused_and_told_who_holds_the_directory() {
    let data_dir = private_folder();
    let cluster = Cluster::start(options(data_dir.path())).await.unwrap();
    let (mut second, said) = spawn_server(data_dir.path(), None);
    second.wait().unwrap();
    let path = data_dir.path().canonicalize().unwrap();
    assert!(said.contains(&path.display().to_string()), "{said}");
    assert!(said.contains(&std::process::id().to_string()), "{said}");
    write_row(&mut connect(&cluster).await, 1).await;
    cluster.stop().await.unwrap();

    let third = Cluster::start(options(data_dir.path())).await.unwrap();
    third.stop().await.unwrap();
}

#[tokio::test]
async fn postgres_killed_under_load_heals_and_keeps_every_acknowledged_row() {
    let data_dir = private_folder();
    let cluster = Cluster::start(options(data_dir.path())).await.unwrap();
    let mut connection = connect(&cluster).await;
    write_row(&mut connection, 0).await;

    for _ in 0..3 {
        let mut acknowledged = rows(&mut connection).await;
        let next = acknowledged.last().unwrap() + 1;
        let writer = tokio::spawn(async move {
            let mut written = Vec::new();
            for n in next.. {
                let insert = sqlx::query("INSERT INTO kept VALUES ($1)").bind(n);
                match insert.execute(&mut connection).await {
                    Ok(_) => written.push(n),
                    Err(_) => break,
                }
                // The backend outlives its postmaster for as long as it is kept busy.
                if n == next + 500 {
                    break;
                }
            }
            written
        });
        sleep(Duration::from_millis(50)).await;
        let old = postmaster_pid(data_dir.path());
        kill(old, Signal::SIGKILL).unwrap();

        acknowledged.extend(writer.await.unwrap());
        connection = reconnect(&cluster).await;
        assert_ne!(postmaster_pid(data_dir.path()), old);
        let found = rows(&mut connection).await;
        // The last insert may have been committed without its acknowledgement arriving.
        assert!(
            found.starts_with(&acknowledged),
            "acknowledged rows are missing"
        );
        assert!(found.len() <= acknowledged.len() + 1);
    }
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn a_killed_server_leaves_a_postgres_that_the_next_one_takes_over_and_looks_after() {
    let data_dir = private_folder();
    let (server, said) = spawn_server(data_dir.path(), None);
    assert!(said.contains("ready"), "{said}");
    let left_running = postmaster_pid(data_dir.path());
    kill_server(server);

    let cluster = Cluster::start(options(data_dir.path())).await.unwrap();
    assert_eq!(postmaster_pid(data_dir.path()), left_running);
    write_row(&mut connect(&cluster).await, 1).await;

    kill(left_running, Signal::SIGKILL).unwrap();
    let mut connection = reconnect_to_another(&cluster, data_dir.path(), left_running).await;
    assert_eq!(rows(&mut connection).await, [1]);
    cluster.stop().await.unwrap();
    assert!(!pid_file(data_dir.path()).exists());
}

/// Connects once another postmaster than `old` is in charge.
async fn reconnect_to_another(cluster: &Cluster, data_dir: &Path, old: Pid) -> PgConnection {
    let deadline = Instant::now() + GENEROUS;
    while fs::read_to_string(pid_file(data_dir))
        .is_ok_and(|text| text.starts_with(&format!("{old}\n")))
    {
        assert!(Instant::now() < deadline, "never started again");
        sleep(Duration::from_millis(10)).await;
    }
    reconnect(cluster).await
}

#[tokio::test]
async fn a_taken_over_postgres_is_stopped_with_the_server() {
    let data_dir = private_folder();
    let (server, _) = spawn_server(data_dir.path(), None);
    kill_server(server);
    let cluster = Cluster::start(options(data_dir.path())).await.unwrap();
    cluster.stop().await.unwrap();
    assert!(!pid_file(data_dir.path()).exists());
}

#[tokio::test]
async fn server_and_postgres_killed_together_come_back_with_the_data() {
    let data_dir = private_folder();
    let cluster = Cluster::start(options(data_dir.path())).await.unwrap();
    write_row(&mut connect(&cluster).await, 1).await;
    cluster.stop().await.unwrap();

    let (server, _) = spawn_server(data_dir.path(), None);
    let pid = postmaster_pid(data_dir.path());
    kill_server(server);
    kill(pid, Signal::SIGKILL).unwrap();

    let cluster = Cluster::start(options(data_dir.path())).await.unwrap();
    assert_ne!(postmaster_pid(data_dir.path()), pid);
    assert_eq!(rows(&mut connect(&cluster).await).await, [1]);
    cluster.stop().await.unwrap();
}

/// Starts that program as the user Postgres runs under: Postgres does not take a process it may
/// not signal for another Postgres, so only such a one can be in its way.
fn spawn_beside_postgres(data_dir: &Path, program: &str, argument: &str) -> Child {
    let mut command = Command::new(program);
    command.arg(argument);
    if geteuid().is_root() {
        let owner = fs::metadata(data_dir.join("postgres")).unwrap();
        command.uid(owner.uid()).gid(owner.gid());
    }
    command.spawn().unwrap()
}

/// Makes the pid file, as a killed Postgres leaves it, name that process.
fn put_stale_pid_file(data_dir: &Path, lines: &str, process: &Child) {
    let (_, rest) = lines.split_once('\n').unwrap();
    fs::write(pid_file(data_dir), format!("{}\n{rest}", process.id())).unwrap();
}

#[tokio::test]
async fn a_pid_file_naming_a_stranger_or_an_unreaped_process_does_not_keep_postgres_from_starting()
{
    let data_dir = private_folder();
    let cluster = Cluster::start(options(data_dir.path())).await.unwrap();
    write_row(&mut connect(&cluster).await, 1).await;
    let lines = fs::read_to_string(pid_file(data_dir.path())).unwrap();
    cluster.stop().await.unwrap();

    // As after a reboot or in a new container, when the number has gone to somebody else.
    let mut stranger = spawn_beside_postgres(data_dir.path(), "sleep", "600");
    put_stale_pid_file(data_dir.path(), &lines, &stranger);
    let cluster = Cluster::start(options(data_dir.path())).await.unwrap();
    assert_eq!(rows(&mut connect(&cluster).await).await, [1]);
    assert!(stranger.try_wait().unwrap().is_none(), "left alone");
    cluster.stop().await.unwrap();
    stranger.kill().unwrap();

    // Killed, and not waited for: it keeps its number.
    put_stale_pid_file(data_dir.path(), &lines, &stranger);
    let cluster = Cluster::start(options(data_dir.path())).await.unwrap();
    assert_eq!(rows(&mut connect(&cluster).await).await, [1]);
    cluster.stop().await.unwrap();
    stranger.wait().unwrap();
}

#[tokio::test]
async fn a_start_broken_off_at_any_time_leaves_nothing_that_fails_later() {
    let data_dir = private_folder();
    // From the middle of initdb to Postgres coming up, on one machine or another.
    for moment in [50, 150, 300, 500, 700, 30, 60] {
        let start = start_when_free(data_dir.path());
        let broken_off = tokio::time::timeout(Duration::from_millis(moment), start).await;
        if let Ok(cluster) = broken_off {
            cluster.stop().await.unwrap();
        }
    }
    let cluster = start_when_free(data_dir.path()).await;
    write_row(&mut connect(&cluster).await, 1).await;
    cluster.stop().await.unwrap();

    // A process of the killed initdb may have hindered the cleaning; the next start does it.
    let cluster = Cluster::start(options(data_dir.path())).await.unwrap();
    cluster.stop().await.unwrap();
    let unfinished = fs::read_dir(data_dir.path())
        .unwrap()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().contains("unfinished"));
    assert_eq!(unfinished.count(), 0);
}

#[tokio::test]
async fn a_long_path_gets_its_socket_in_a_short_private_folder() {
    let folder = open_folder();
    let mut data_dir = folder.path().to_owned();
    for _ in 0..4 {
        data_dir.push("a-folder-with-a-long-name-to-fill-the-socket-path");
        fs::create_dir(&data_dir).unwrap();
        fs::set_permissions(&data_dir, Permissions::from_mode(0o755)).unwrap();
    }
    let cluster = Cluster::start(options(&data_dir)).await.unwrap();
    write_row(&mut connect(&cluster).await, 1).await;
    let options_of_first = cluster.connect_options();
    let sockets = options_of_first.get_socket().unwrap();
    assert!(!sockets.starts_with(folder.path()));
    assert_eq!(fs::metadata(sockets).unwrap().mode() & 0o777, 0o700);
    cluster.stop().await.unwrap();

    let cluster = Cluster::start(options(&data_dir)).await.unwrap();
    assert_eq!(cluster.connect_options().get_socket(), Some(sockets));
    assert_eq!(rows(&mut connect(&cluster).await).await, [1]);
    cluster.stop().await.unwrap();

    // A folder that others can look into is not used.
    fs::set_permissions(sockets, Permissions::from_mode(0o755)).unwrap();
    let error = Cluster::start(options(&data_dir)).await.unwrap_err();
    assert!(
        matches!(error, ClusterError::SocketDirectory { .. }),
        "{error}"
    );
    fs::remove_dir(sockets).unwrap();
}

#[tokio::test]
async fn without_postgres_the_error_says_what_to_install() {
    let data_dir = private_folder();
    let nothing_here = tempfile::tempdir().unwrap();
    let error = Cluster::start(ClusterOptions {
        binary_dirs: Some(vec![nothing_here.path().to_owned()]),
        ..options(data_dir.path())
    })
    .await
    .unwrap_err();
    assert!(matches!(error, ClusterError::NoBinaries { .. }));
    let said = error.to_string();
    assert!(said.contains("apt-get install postgresql"), "{said}");
    assert!(!said.contains('\n'), "{said}");
}

/// A folder with programs that claim to be that version.
fn fake_postgres(version: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in ["postgres", "initdb"] {
        let program = folder.path().join(name);
        let script = format!("#!/bin/sh\necho '{name} (PostgreSQL) {version}'\n");
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
    }
    folder
}

#[tokio::test]
async fn a_postgres_that_is_too_old_is_named() {
    let data_dir = private_folder();
    let old = fake_postgres("13.14");
    let error = Cluster::start(ClusterOptions {
        binary_dirs: Some(vec![old.path().to_owned()]),
        ..options(data_dir.path())
    })
    .await
    .unwrap_err();
    assert!(error.to_string().contains("13.14"), "{error}");
    assert!(matches!(error, ClusterError::TooOld { .. }), "{error}");
}

#[tokio::test]
async fn a_cluster_of_another_major_version_is_not_touched() {
    let data_dir = private_folder();
    let cluster = Cluster::start(options(data_dir.path())).await.unwrap();
    let made_by = cluster.version().major;
    cluster.stop().await.unwrap();

    let newer = fake_postgres("99.1");
    let error = Cluster::start(ClusterOptions {
        binary_dirs: Some(vec![newer.path().to_owned()]),
        ..options(data_dir.path())
    })
    .await
    .unwrap_err();
    assert!(
        matches!(error, ClusterError::WrongMajor { cluster, .. } if cluster == made_by),
        "{error}"
    );
}

#[tokio::test]
async fn a_data_directory_that_cannot_be_made_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let data_dir = file.join("data");
    let error = Cluster::start(options(&data_dir)).await.unwrap_err();
    assert!(matches!(error, ClusterError::Io { .. }), "{error}");
    assert!(
        error.to_string().contains(&file.display().to_string()),
        "{error}"
    );
}

#[tokio::test]
async fn a_data_directory_that_may_not_be_written_is_named() {
    let folder = open_folder();
    let data_dir = folder.path().join("data");
    fs::create_dir(&data_dir).unwrap();
    fs::set_permissions(&data_dir, Permissions::from_mode(0o555)).unwrap();
    // Root may write anywhere, so it sends somebody else.
    let other = geteuid().is_root().then_some(65534);
    let (mut server, said) = spawn_server(&data_dir, other);
    server.wait().unwrap();
    assert!(said.contains("failed: "), "{said}");
    assert!(said.contains(&data_dir.display().to_string()), "{said}");
}

#[tokio::test]
async fn a_folder_that_is_no_cluster_is_left_as_it_is() {
    let data_dir = private_folder();
    let data = data_dir.path().join("postgres");
    fs::create_dir(&data).unwrap();
    if geteuid().is_root() {
        std::os::unix::fs::chown(&data, Some(65534), Some(65534)).unwrap();
    }
    fs::write(data.join("diary.txt"), "mine").unwrap();
    let error = Cluster::start(options(data_dir.path())).await.unwrap_err();
    assert!(matches!(error, ClusterError::NotACluster { .. }), "{error}");
    assert_eq!(fs::read_to_string(data.join("diary.txt")).unwrap(), "mine");
}

#[tokio::test]
async fn when_postgres_refuses_to_start_its_own_words_are_in_the_error() {
    let data_dir = private_folder();
    let error = Cluster::start(ClusterOptions {
        settings: vec![("max_connections".to_owned(), "many".to_owned())],
        ..options(data_dir.path())
    })
    .await
    .unwrap_err();
    assert!(matches!(error, ClusterError::NotStarted { .. }), "{error}");
    let said = error.to_string();
    assert!(said.contains("max_connections"), "{said}");
    assert!(!said.contains('\n'), "{said}");
}

#[tokio::test]
async fn what_statements_say_does_not_reach_the_log() {
    let data_dir = private_folder();
    let cluster = Cluster::start(options(data_dir.path())).await.unwrap();
    let mut connection = connect(&cluster).await;
    sqlx::query("SELECT 'secret-of-a-customer'::uuid")
        .execute(&mut connection)
        .await
        .unwrap_err();
    cluster.stop().await.unwrap();
    let log = fs::read_to_string(data_dir.path().join("postgres.log")).unwrap();
    assert!(log.contains("ready to accept connections"), "{log}");
    assert!(!log.contains("secret-of-a-customer"), "{log}");
}

/// Only root runs Postgres as somebody who may be shut out; for others there is nothing to test.
#[tokio::test]
async fn a_folder_that_postgres_may_not_enter_is_named() {
    if !geteuid().is_root() {
        return;
    }
    let closed = private_folder();
    let data_dir = closed.path().join("data");
    let error = Cluster::start(options(&data_dir)).await.unwrap_err();
    let ClusterError::CannotEnter { blocked, .. } = &error else {
        panic!("{error}");
    };
    assert_eq!(blocked, &closed.path().canonicalize().unwrap());
}

#[tokio::test]
async fn an_ordinary_user_runs_the_cluster_as_that_user() {
    let folder = open_folder();
    let data_dir = folder.path().join("data");
    fs::create_dir(&data_dir).unwrap();
    let uid = if geteuid().is_root() {
        65534
    } else {
        geteuid().as_raw()
    };
    if geteuid().is_root() {
        std::os::unix::fs::chown(&data_dir, Some(uid), Some(uid)).unwrap();
    }
    let (server, said) = spawn_server(&data_dir, geteuid().is_root().then_some(uid));
    assert!(said.contains("ready"), "{said}");
    assert_eq!(fs::metadata(data_dir.join("postgres")).unwrap().uid(), uid);
    kill_server(server);
    // Whoever comes next stops it; root keeps to the owner the cluster has.
    let cluster = Cluster::start(options(&data_dir)).await.unwrap();
    cluster.stop().await.unwrap();
    assert_eq!(fs::metadata(data_dir.join("postgres")).unwrap().uid(), uid);
}

#[tokio::test]
async fn one_directory_under_two_names_is_still_one_directory() {
    let folder = open_folder();
    let data_dir = folder.path().join("data");
    let other_name = folder.path().join("link");
    let cluster = Cluster::start(options(&data_dir)).await.unwrap();
    symlink(&data_dir, &other_name).unwrap();
    let error = Cluster::start(options(&other_name)).await.unwrap_err();
    assert!(
        matches!(error, ClusterError::Locked { holder, .. } if holder == Some(std::process::id())),
        "{error}"
    );
    cluster.stop().await.unwrap();
}
