//! The bucket: whose files they are, who may do what, what is taken, and that bytes go when their file does.

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;

use futures_util::StreamExt;
use reqwest::Method;
use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};
use wasel_config::Switch;
use wasel_db::storage::{self, Version};
use wasel_simulator::{S3_ACCESS_KEY_ID, S3_SECRET_ACCESS_KEY, Simulator};
use wasel_testkit::{Answer, Org, TestApp, wait_until};

const BUCKET: &str = "/storage/v1/object/whatsapp-media";
const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR and so on";

async fn upload(
    app: &TestApp,
    token: &str,
    path: &str,
    mime: &str,
    bytes: impl Into<reqwest::Body>,
) -> Answer {
    let request = app
        .request(Method::POST, &format!("{BUCKET}/{path}"))
        .bearer_auth(token)
        .header("content-type", mime)
        .header("cache-control", "max-age=3600");
    Answer::of(request.body(bytes)).await
}

async fn text(app: &TestApp, token: &str, path: &str, text: &str) -> Value {
    upload(app, token, path, "text/plain", text.to_owned())
        .await
        .expect(200)
}

/// What a refusal says: the status in its body and its code. Its own status is 400.
#[track_caller]
fn refused(answer: Answer) -> (String, String) {
    let body = answer.expect(400);
    let word = |name: &str| body[name].as_str().unwrap().to_owned();
    assert!(
        !word("message").is_empty() && !word("error").is_empty(),
        "{body}"
    );
    (word("statusCode"), word("code"))
}

fn is(status: &str, code: &str) -> (String, String) {
    (status.to_owned(), code.to_owned())
}

/// Files below a directory.
fn files(directory: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return 0;
    };
    entries
        .flatten()
        .map(|entry| match entry.file_type() {
            Ok(kind) if kind.is_dir() => files(&entry.path()),
            _ => 1,
        })
        .sum()
}

async fn wait_files(app: &TestApp, wanted: usize) {
    let directory = app.data_dir().join("media/storage");
    wait_until(&format!("{wanted} files on disk"), async || {
        (files(&directory) == wanted).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_file_is_served_whole_in_part_or_not_again() {
    let app = TestApp::start().await;
    let a = app.org("a").await;
    let made = text(&app, a.agent(), "notes/plan.txt", "0123456789").await;
    assert_eq!(made["Key"], "whatsapp-media/notes/plan.txt");
    let get = async |headers: &[(&str, &str)]| {
        let mut request = app
            .request(Method::GET, &format!("{BUCKET}/notes/plan.txt"))
            .bearer_auth(&a.people.viewer_token);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Answer::of(request).await
    };
    let whole = get(&[]).await;
    assert_eq!((whole.status, whole.text.as_str()), (200, "0123456789"));
    assert_eq!(whole.header("content-length"), "10");
    assert_eq!(whole.header("content-type"), "text/plain");
    assert_eq!(whole.header("content-disposition"), "attachment");
    assert_eq!(whole.header("x-content-type-options"), "nosniff");
    assert_eq!(whole.header("cache-control"), "private, max-age=3600");
    assert_eq!(whole.header("accept-ranges"), "bytes");
    let vary: Vec<&str> = whole
        .headers
        .get_all("vary")
        .iter()
        .map(|v| v.to_str().unwrap())
        .collect();
    assert!(vary.join(",").contains("authorization"), "{vary:?}");
    let etag = whole.header("etag").to_owned();

    for (range, status, body, content_range) in [
        ("bytes=2-4", 206, "234", "bytes 2-4/10"),
        ("bytes=7-", 206, "789", "bytes 7-9/10"),
        ("bytes=-1", 206, "9", "bytes 9-9/10"),
        ("bytes=0-1,4-5", 200, "0123456789", ""),
    ] {
        let part = get(&[("range", range)]).await;
        assert_eq!(
            (
                part.status,
                part.text.as_str(),
                part.header("content-range")
            ),
            (status, body, content_range),
            "{range}"
        );
    }
    let beyond = get(&[("range", "bytes=10-")]).await;
    assert_eq!(
        (beyond.status, beyond.header("content-range")),
        (416, "bytes */10")
    );
    assert_eq!(beyond.body["code"], "InvalidRange");
    let changed = get(&[("range", "bytes=2-4"), ("if-range", "\"other\"")]).await;
    assert_eq!(changed.status, 200);

    let known = get(&[("if-none-match", &format!("\"x\", W/{etag}"))]).await;
    assert_eq!((known.status, known.text.as_str()), (304, ""));
    assert_eq!(known.header("etag"), etag);
    assert_eq!(get(&[("if-none-match", "\"x\"")]).await.status, 200);
    let since = whole.header("last-modified").to_owned();
    assert_eq!(get(&[("if-modified-since", &since)]).await.status, 304);

    let head = app.request(Method::HEAD, &format!("{BUCKET}/notes/plan.txt"));
    let head = Answer::of(head.bearer_auth(a.owner())).await;
    assert_eq!((head.status, head.header("content-length")), (200, "10"));
    let named = app
        .get(
            a.owner(),
            &format!("{BUCKET}/notes/plan.txt?download=%D8%AE%D8%B7%D8%A9.txt"),
        )
        .await;
    assert_eq!(
        named.header("content-disposition"),
        "attachment; filename*=UTF-8''%D8%AE%D8%B7%D8%A9%2Etxt"
    );
}

#[tokio::test]
async fn only_what_whatsapp_sends_is_taken_and_only_if_it_is_what_it_says() {
    let app = TestApp::builder()
        .configure(|config| config.storage.max_file = 8 * 1024 * 1024)
        .start()
        .await;
    let a = app.org("a").await;
    for (mime, bytes) in [
        ("text/html", &b"<script>alert(1)</script>"[..]),
        ("image/svg+xml", b"<svg/>"),
        ("image/png", b"<script>alert(1)</script>"),
        ("image/jpeg", PNG),
        ("application/json", b"{}"),
        ("", b"MZ\x90\0\x03\0"),
    ] {
        let answer = upload(&app, a.owner(), "x", mime, bytes.to_vec()).await;
        assert_eq!(refused(answer), is("415", "InvalidMimeType"), "{mime}");
    }
    // A picture may be 5 MiB, whatever else may be more; it is counted as it comes, without a length.
    let mut large = PNG.to_vec();
    large.resize(5 * 1024 * 1024 + 1, 0);
    let chunks: Vec<std::io::Result<Vec<u8>>> = large
        .chunks(100_000)
        .map(|chunk| Ok(chunk.to_vec()))
        .collect();
    let stream = reqwest::Body::wrap_stream(futures_util::stream::iter(chunks));
    let answer = upload(&app, a.owner(), "large.png", "image/png", stream).await;
    assert_eq!(refused(answer), is("413", "EntityTooLarge"));
    let mut document = b"%PDF-1.7".to_vec();
    document.resize(8 * 1024 * 1024, 0);
    upload(
        &app,
        a.owner(),
        "large.pdf",
        "application/pdf",
        document.clone(),
    )
    .await
    .expect(200);
    document.push(0);
    let answer = upload(&app, a.owner(), "larger.pdf", "application/pdf", document).await;
    assert_eq!(refused(answer), is("413", "EntityTooLarge"));
    // Undeclared, it is what it is.
    upload(&app, a.owner(), "pic", "", PNG).await.expect(200);
    let info = app
        .get(a.owner(), "/storage/v1/object/info/whatsapp-media/pic")
        .await
        .expect(200);
    assert_eq!(
        (info["content_type"].as_str(), info["size"].as_u64()),
        (Some("image/png"), Some(PNG.len() as u64))
    );
    let shown = app.get(a.owner(), &format!("{BUCKET}/pic")).await;
    assert_eq!(shown.header("content-disposition"), "inline");
    assert!(shown.header("content-security-policy").contains("sandbox"));
    assert_eq!(app.count("SELECT count(*) FROM storage_objects").await, 2);
}

#[tokio::test]
async fn a_path_that_is_no_name_is_refused() {
    let app = TestApp::start().await;
    let a = app.org("a").await;
    for path in [
        "a%2F..%2Fb",
        "a%00b",
        "a%252Fb",
        "a//b",
        "a%0Ab",
        "%FF",
        "a/b/",
    ] {
        let answer = upload(&app, a.owner(), path, "text/plain", "x").await;
        assert_eq!(refused(answer), is("400", "InvalidKey"), "{path}");
    }
    let answer = upload(&app, a.owner(), "فواتير/فاتورة ٣.txt", "text/plain", "x")
        .await
        .expect(200);
    assert_eq!(answer["Key"], "whatsapp-media/فواتير/فاتورة ٣.txt");
    let other = app.get(a.owner(), "/storage/v1/object/avatars/x").await;
    assert_eq!(refused(other), is("404", "NoSuchBucket"));
    let nowhere = app.get(a.owner(), "/storage/v1/nonsense").await;
    assert_eq!(refused(nowhere).0, "404");
}

#[tokio::test]
async fn a_viewer_reads_and_nobody_in_particular_does_nothing() {
    let app = TestApp::start().await;
    let a = app.org("a").await;
    text(&app, a.owner(), "x.txt", "x").await;
    let viewer = &a.people.viewer_token;
    app.get(viewer, &format!("{BUCKET}/x.txt"))
        .await
        .expect(200);
    let body =
        json!({ "bucketId": "whatsapp-media", "sourceKey": "x.txt", "destinationKey": "y.txt" });
    let remove = json!({ "prefixes": ["x.txt"] });
    let delete = |token: &str| {
        let request = app
            .request(Method::DELETE, BUCKET)
            .bearer_auth(token)
            .json(&remove);
        Answer::of(request)
    };
    let denied = is("403", "AccessDenied");
    assert_eq!(
        refused(upload(&app, viewer, "y.txt", "text/plain", "y").await),
        denied
    );
    assert_eq!(
        refused(app.post(viewer, "/storage/v1/object/move", &body).await),
        denied
    );
    assert_eq!(
        refused(app.post(viewer, "/storage/v1/object/copy", &body).await),
        denied
    );
    assert_eq!(refused(delete(viewer).await), denied);
    let path = "/storage/v1/object/upload/sign/whatsapp-media/y.txt";
    assert_eq!(refused(app.post(viewer, path, &json!({})).await), denied);
    for answer in [
        Answer::of(app.request(Method::GET, &format!("{BUCKET}/x.txt"))).await,
        app.get("sb_publishable_x", &format!("{BUCKET}/x.txt"))
            .await,
        app.get("nonsense", &format!("{BUCKET}/x.txt")).await,
        upload(&app, "sb_publishable_x", "y.txt", "text/plain", "y").await,
    ] {
        assert_eq!(refused(answer), is("403", "InvalidJWT"));
    }
    assert_eq!(
        app.count("SELECT count(*) FROM storage_objects WHERE name = 'x.txt'")
            .await,
        1
    );
    assert_eq!(app.count("SELECT count(*) FROM storage_objects").await, 1);
}

#[tokio::test]
async fn the_same_path_in_two_tenants_is_two_files() {
    let app = TestApp::start().await;
    let (a, b) = (app.org("a").await, app.org("b").await);
    let same = format!("{}/plan.txt", a.id);
    for path in ["plan.txt", &same] {
        text(&app, a.owner(), path, "of a").await;
        let answer = app.get(b.owner(), &format!("{BUCKET}/{path}")).await;
        assert_eq!(refused(answer), is("404", "NoSuchKey"));
        text(&app, b.owner(), path, "of b").await;
        for (org, wanted) in [(&a, "of a"), (&b, "of b")] {
            assert_eq!(
                app.get(org.owner(), &format!("{BUCKET}/{path}")).await.text,
                wanted
            );
        }
    }
    let remove = app.request(Method::DELETE, BUCKET).bearer_auth(b.owner());
    let removed = Answer::of(remove.json(&json!({ "prefixes": ["plan.txt", same] })))
        .await
        .expect(200);
    assert_eq!(removed.as_array().unwrap().len(), 2);
    assert_eq!(
        app.get(a.owner(), &format!("{BUCKET}/plan.txt")).await.text,
        "of a"
    );
}

#[tokio::test]
async fn public_is_what_a_tenant_put_into_its_own_public_folder() {
    let app = TestApp::start().await;
    let (a, b) = (app.org("a").await, app.org("b").await);
    let path = format!("{}/public/logo.png", a.id);
    let anybody = async |path: &str| {
        let path = format!("/storage/v1/object/public/whatsapp-media/{path}");
        Answer::of(app.request(Method::GET, &path)).await
    };
    let missing = is("404", "NoSuchKey");
    assert_eq!(refused(anybody(&path).await), missing);
    // Another tenant cannot put a file there, by any way.
    text(&app, b.owner(), "evil.txt", "of b").await;
    assert_eq!(
        refused(upload(&app, b.owner(), &path, "image/png", PNG).await),
        is("403", "AccessDenied")
    );
    let body =
        json!({ "bucketId": "whatsapp-media", "sourceKey": "evil.txt", "destinationKey": path });
    for way in ["move", "copy"] {
        let answer = app
            .post(b.owner(), &format!("/storage/v1/object/{way}"), &body)
            .await;
        assert_eq!(refused(answer), is("403", "AccessDenied"));
    }
    let sign = format!("/storage/v1/object/upload/sign/whatsapp-media/{path}");
    assert_eq!(
        refused(app.post(b.owner(), &sign, &json!({})).await),
        is("403", "AccessDenied")
    );
    // Even a row written by SQL past all that is its tenant's alone.
    sqlx::query("UPDATE storage_objects SET name = $1 WHERE org_id = $2")
        .bind(&path)
        .bind(b.id)
        .execute(&app.owner)
        .await
        .unwrap();
    assert_eq!(refused(anybody(&path).await), missing);

    upload(&app, a.owner(), &path, "image/png", PNG)
        .await
        .expect(200);
    let served = anybody(&path).await;
    assert_eq!(
        (served.status, served.header("content-type")),
        (200, "image/png")
    );
    assert_eq!(served.header("cache-control"), "public, max-age=3600");
    let part = app.request(
        Method::GET,
        &format!("/storage/v1/object/public/whatsapp-media/{path}"),
    );
    assert_eq!(
        Answer::of(part.header("range", "bytes=1-3")).await.text,
        "PNG"
    );
    // Nothing else is.
    for private in [
        format!("{}/logo.png", a.id),
        "public/logo.png".to_owned(),
        "logo.png".to_owned(),
    ] {
        upload(&app, a.owner(), &private, "image/png", PNG)
            .await
            .expect(200);
        assert_eq!(refused(anybody(&private).await), missing, "{private}");
    }
}

#[tokio::test]
async fn where_the_operator_says_so_nothing_is_public() {
    let app = TestApp::builder()
        .configure(|config| config.storage.public_media = Switch::Off)
        .start()
        .await;
    let a = app.org("a").await;
    let path = format!("{}/public/logo.png", a.id);
    upload(&app, a.owner(), &path, "image/png", PNG)
        .await
        .expect(200);
    let public = app.request(
        Method::GET,
        &format!("/storage/v1/object/public/whatsapp-media/{path}"),
    );
    assert_eq!(refused(Answer::of(public).await), is("404", "NoSuchKey"));
    let made = document_upload(&app, a.owner(), None).await.expect(200);
    let url = made["media_url"].as_str().unwrap();
    assert!(url.contains("/object/sign/whatsapp-media/"), "{url}");
    assert_eq!(
        app.http
            .get(url)
            .send()
            .await
            .unwrap()
            .bytes()
            .await
            .unwrap(),
        PNG
    );
}

#[tokio::test]
async fn a_signed_address_opens_one_file_of_one_tenant() {
    let app = TestApp::start().await;
    let (a, b) = (app.org("a").await, app.org("b").await);
    for org in [&a, &b] {
        text(&app, org.owner(), "x y.txt", &format!("of {}", org.slug)).await;
        text(&app, org.owner(), "z.txt", "z").await;
    }
    let sign = "/storage/v1/object/sign/whatsapp-media/x%20y.txt";
    let signed = app
        .post(&a.people.viewer_token, sign, &json!({ "expiresIn": 60 }))
        .await
        .expect(200);
    let signed = signed["signedURL"].as_str().unwrap().to_owned();
    assert!(
        signed.starts_with("/object/sign/whatsapp-media/x y.txt?token="),
        "{signed}"
    );
    let get = async |path: String| {
        Answer::of(app.request(Method::GET, &format!("/storage/v1{path}"))).await
    };
    let answer = get(signed.clone()).await;
    assert_eq!((answer.status, answer.text.as_str()), (200, "of a"));
    assert!(
        answer
            .header("cache-control")
            .starts_with("private, max-age=")
    );
    assert_eq!(
        refused(get(signed.replace("x y", "z")).await),
        is("400", "InvalidSignature")
    );
    assert_eq!(
        refused(get(format!("{signed}x")).await),
        is("400", "InvalidJWT")
    );
    let (_, token) = signed.split_once("?token=").unwrap();
    assert_eq!(
        refused(get("/object/sign/whatsapp-media/z.txt".to_owned()).await),
        is("400", "InvalidJWT")
    );
    // It is no token of a person, and a person's is no address.
    assert_eq!(app.get(token, "/v1/conversations").await.status, 401);
    let forged = format!("/object/sign/whatsapp-media/x%20y.txt?token={}", a.owner());
    assert_eq!(refused(get(forged).await), is("400", "InvalidJWT"));
    let put = app.request(
        Method::PUT,
        &format!("/storage/v1/object/upload/sign/whatsapp-media/x%20y.txt?token={token}"),
    );
    assert_eq!(
        refused(Answer::of(put.body("x")).await),
        is("400", "InvalidJWT")
    );
    assert_eq!(
        refused(app.post(a.owner(), sign, &json!({ "expiresIn": 0 })).await),
        is("400", "InvalidRequest")
    );
    let none = "/storage/v1/object/sign/whatsapp-media/none.txt";
    assert_eq!(
        refused(app.post(a.owner(), none, &json!({ "expiresIn": 60 })).await),
        is("404", "NoSuchKey")
    );

    // One second, and it is over.
    let short = app
        .post(a.owner(), sign, &json!({ "expiresIn": 1 }))
        .await
        .expect(200);
    let short = short["signedURL"].as_str().unwrap().to_owned();
    wait_until("the address is too old", async || {
        let answer = get(short.clone()).await;
        (answer.status == 400 && answer.body["code"] == "ExpiredToken").then_some(())
    })
    .await;

    // An upload address is for its path, once, unless it says that it may replace.
    let up = "/storage/v1/object/upload/sign/whatsapp-media/new.txt";
    let made = app.post(a.agent(), up, &json!({})).await.expect(200);
    let token = made["token"].as_str().unwrap();
    let put = async |name: &str| {
        let path = format!("/storage/v1/object/upload/sign/whatsapp-media/{name}?token={token}");
        Answer::of(
            app.request(Method::PUT, &path)
                .header("content-type", "text/plain")
                .body("new"),
        )
        .await
    };
    assert_eq!(
        refused(put("other.txt").await),
        is("400", "InvalidSignature")
    );
    put("new.txt").await.expect(200);
    assert_eq!(refused(put("new.txt").await), is("409", "KeyAlreadyExists"));
    assert_eq!(
        app.get(a.owner(), &format!("{BUCKET}/new.txt")).await.text,
        "new"
    );
    let owner: uuid::Uuid =
        sqlx::query_scalar("SELECT owner_id FROM storage_objects WHERE name = 'new.txt'")
            .fetch_one(&app.owner)
            .await
            .unwrap();
    assert_eq!(owner, a.people.agent);
}

#[tokio::test]
async fn bytes_go_when_their_file_does() {
    let app = TestApp::start().await;
    let a = app.org("a").await;
    text(&app, a.owner(), "one.txt", "first").await;
    text(&app, a.owner(), "two.txt", "second").await;
    wait_files(&app, 2).await;
    // Replaced.
    let again = upload(&app, a.owner(), "one.txt", "text/plain", "other").await;
    assert_eq!(refused(again), is("409", "KeyAlreadyExists"));
    let replace = app
        .request(Method::PUT, &format!("{BUCKET}/one.txt"))
        .bearer_auth(a.owner());
    Answer::of(replace.header("content-type", "text/plain").body("third"))
        .await
        .expect(200);
    wait_files(&app, 2).await;
    assert_eq!(
        app.get(a.owner(), &format!("{BUCKET}/one.txt")).await.text,
        "third"
    );
    // Moved: the same bytes. Copied: others.
    let body = json!({ "bucketId": "whatsapp-media", "sourceKey": "one.txt", "destinationKey": "d/three.txt" });
    app.post(a.owner(), "/storage/v1/object/move", &body)
        .await
        .expect(200);
    let taken = json!({ "bucketId": "whatsapp-media", "sourceKey": "d/three.txt", "destinationKey": "two.txt" });
    assert_eq!(
        refused(app.post(a.owner(), "/storage/v1/object/move", &taken).await),
        is("409", "KeyAlreadyExists")
    );
    assert_eq!(
        refused(app.post(a.owner(), "/storage/v1/object/move", &body).await),
        is("404", "NoSuchKey")
    );
    let body = json!({ "bucketId": "whatsapp-media", "sourceKey": "d/three.txt", "destinationKey": "four.txt" });
    app.post(a.owner(), "/storage/v1/object/copy", &body)
        .await
        .expect(200);
    wait_files(&app, 3).await;
    // Removed by whoever's SQL.
    sqlx::query("DELETE FROM storage_objects WHERE name = 'd/three.txt'")
        .execute(&app.owner)
        .await
        .unwrap();
    let remove = app.request(Method::DELETE, BUCKET).bearer_auth(a.owner());
    Answer::of(remove.json(&json!({ "prefixes": ["two.txt"] })))
        .await
        .expect(200);
    wait_files(&app, 1).await;
    assert_eq!(
        app.get(a.owner(), &format!("{BUCKET}/four.txt")).await.text,
        "third"
    );
    // Begun and never finished: due tomorrow, when it goes like the rest.
    sqlx::query("DELETE FROM storage_objects")
        .execute(&app.owner)
        .await
        .unwrap();
    text(&app, a.owner(), "five.txt", "x").await;
    wait_files(&app, 1).await;
    let reservation = app
        .count("SELECT count(*) FROM wasel.storage_garbage")
        .await;
    assert_eq!(reservation, 0, "what is in use is no garbage");
}

#[tokio::test]
async fn a_folder_is_listed_as_supabase_lists_it() {
    let app = TestApp::start().await;
    let (a, b) = (app.org("a").await, app.org("b").await);
    for path in [
        "b.txt",
        "a.txt",
        "z/1.txt",
        "z/2.txt",
        "z/y/3.txt",
        "m/4.txt",
        "100%_sure.txt",
    ] {
        let path = path.replace('%', "percent");
        text(&app, a.owner(), &path, "x").await;
    }
    let list = async |body: Value| {
        let list = app
            .post(a.owner(), "/storage/v1/object/list/whatsapp-media", &body)
            .await
            .expect(200);
        let names = list
            .as_array()
            .unwrap()
            .iter()
            .map(|file| file["name"].as_str().unwrap().to_owned());
        names.collect::<Vec<_>>()
    };
    assert_eq!(
        list(json!({ "prefix": "" })).await,
        ["m", "z", "100percent_sure.txt", "a.txt", "b.txt"]
    );
    assert_eq!(
        list(json!({ "prefix": "z/" })).await,
        ["y", "1.txt", "2.txt"]
    );
    assert_eq!(
        list(json!({ "prefix": "z" })).await,
        ["y", "1.txt", "2.txt"]
    );
    assert_eq!(list(json!({ "prefix": "z/y" })).await, ["3.txt"]);
    assert_eq!(list(json!({ "prefix": "nothing" })).await, [""; 0]);
    assert_eq!(
        list(json!({ "prefix": "", "limit": 2, "offset": 1 })).await,
        ["z", "100percent_sure.txt"]
    );
    assert_eq!(
        list(json!({ "prefix": "", "search": "A" })).await,
        ["a.txt"]
    );
    assert_eq!(list(json!({ "prefix": "", "search": "%" })).await, [""; 0]);
    let newest = json!({ "prefix": "", "sortBy": { "column": "created_at", "order": "desc" } });
    assert_eq!(
        list(newest).await,
        ["z", "m", "100percent_sure.txt", "a.txt", "b.txt"]
    );
    let whole = app
        .post(
            a.owner(),
            "/storage/v1/object/list/whatsapp-media",
            &json!({ "prefix": "" }),
        )
        .await
        .expect(200);
    assert_eq!(
        whole[0],
        json!({ "name": "m", "id": null, "updated_at": null, "created_at": null,
        "last_accessed_at": null, "metadata": null })
    );
    assert_eq!(whole[3]["metadata"]["size"], 1);
    let others = app
        .post(
            b.owner(),
            "/storage/v1/object/list/whatsapp-media",
            &json!({ "prefix": "" }),
        )
        .await
        .expect(200);
    assert_eq!(others, json!([]));
    for wrong in [
        json!({ "prefix": "..", }),
        json!({ "limit": 0 }),
        json!({ "sortBy": { "column": "org_id" } }),
        json!([]),
    ] {
        let answer = app
            .post(a.owner(), "/storage/v1/object/list/whatsapp-media", &wrong)
            .await;
        assert_eq!(refused(answer).0, "400", "{wrong}");
    }
}

async fn document_upload(app: &TestApp, token: &str, org: Option<&Org>) -> Answer {
    let file = Part::bytes(PNG)
        .file_name("logo ٣.png")
        .mime_str("image/png")
        .unwrap();
    let mut form = Form::new().part("file", file);
    if let Some(org) = org {
        form = form.text("org_id", org.id.to_string());
    }
    let request = app
        .request(Method::POST, "/api/media/upload")
        .bearer_auth(token);
    Answer::of(request.multipart(form)).await
}

#[tokio::test]
async fn a_file_for_a_message_gets_an_address_that_providers_can_fetch() {
    let app = TestApp::start().await;
    let (a, b) = (app.org("a").await, app.org("b").await);
    let made = document_upload(&app, a.owner(), Some(&a)).await.expect(200);
    assert_eq!(
        (&made["success"], &made["media_type"]),
        (&json!(true), &json!("image"))
    );
    let url = made["media_url"].as_str().unwrap();
    let prefix = format!(
        "{}/storage/v1/object/public/whatsapp-media/{}/public/api/",
        app.state().public_url,
        a.id
    );
    assert!(url.starts_with(&prefix), "{url}");
    let fetched = app.http.get(url).send().await.unwrap();
    assert_eq!(fetched.headers()["content-type"], "image/png");
    assert_eq!(fetched.bytes().await.unwrap(), PNG);
    // Two of one name are two.
    let again = document_upload(&app, a.owner(), None).await.expect(200);
    assert_ne!(again["media_url"], made["media_url"]);
    let other = document_upload(&app, a.owner(), Some(&b)).await;
    assert_eq!(
        (other.status, other.body["success"].clone()),
        (403, json!(false))
    );
    assert_eq!(document_upload(&app, "nonsense", None).await.status, 401);
    assert_eq!(
        document_upload(&app, &a.people.viewer_token, None)
            .await
            .status,
        403
    );
    let page = Part::bytes(&b"<html>"[..])
        .file_name("x.html")
        .mime_str("text/html")
        .unwrap();
    let request = app
        .request(Method::POST, "/api/media/upload")
        .bearer_auth(a.owner());
    let refused = Answer::of(request.multipart(Form::new().part("file", page))).await;
    assert_eq!(
        (refused.status, refused.body["success"].clone()),
        (415, json!(false))
    );
    let request = app
        .request(Method::POST, "/api/media/upload")
        .bearer_auth(a.owner());
    assert_eq!(
        Answer::of(request.multipart(Form::new().text("org_id", a.id.to_string())))
            .await
            .status,
        400
    );
    assert_eq!(app.count("SELECT count(*) FROM storage_objects").await, 2);
}

#[tokio::test]
async fn an_upload_meant_for_another_organisation_stores_nothing() {
    let app = TestApp::start().await;
    let (a, b) = (app.org("a").await, app.org("b").await);
    let form = Form::new()
        .text("org_id", b.id.to_string())
        .part("file", Part::bytes(PNG).file_name("x.png"));
    let request = app
        .request(Method::POST, "/api/media/upload")
        .bearer_auth(a.owner());
    let answer = Answer::of(request.multipart(form)).await;
    assert_eq!(
        (answer.status, answer.body["code"].clone()),
        (403, json!("forbidden"))
    );
    let reservations = "SELECT count(*) FROM wasel.storage_garbage";
    assert_eq!(app.count(reservations).await, 0);
}

#[tokio::test]
async fn an_organisation_whose_uploads_hang_keeps_nobody_else_from_uploading() {
    let app = TestApp::start().await;
    let (a, b) = (app.org("a").await, app.org("b").await);
    let hang = async |at: usize| {
        let mut head = b"%PDF-1.7".to_vec();
        head.resize(64 * 1024, 0);
        let head = futures_util::stream::iter([Ok::<_, std::io::Error>(head)]);
        let body = reqwest::Body::wrap_stream(head.chain(futures_util::stream::pending()));
        let path = format!("{at}.pdf");
        upload(&app, a.owner(), &path, "application/pdf", body).await
    };
    let hanging: Vec<_> = (0..16).map(&hang).collect();
    let checks = async {
        wait_until("all of them hang", async || {
            let reservations = "SELECT count(*) FROM wasel.storage_garbage";
            (app.count(reservations).await == 16).then_some(())
        })
        .await;
        text(&app, b.owner(), "b.txt", "of b").await;
        let full = upload(&app, a.owner(), "a.txt", "text/plain", "of a").await;
        assert_eq!(
            (full.status, full.body["code"].clone()),
            (503, json!("SlowDown"))
        );
        assert!(!full.header("retry-after").is_empty());
    };
    tokio::select! {
        _ = futures_util::future::join_all(hanging) => panic!("they do not hang"),
        () = checks => {}
    }
}

#[tokio::test]
async fn a_form_is_one_file_and_little_else() {
    let app = TestApp::start().await;
    let a = app.org("a").await;
    let send = async |name: &str, form: Form| {
        let request = app
            .request(Method::POST, &format!("{BUCKET}/{name}"))
            .bearer_auth(a.owner());
        Answer::of(request.multipart(form)).await
    };
    let file = || Part::bytes(PNG).file_name("x.png");
    let invalid = is("400", "InvalidRequest");

    let two = Form::new().part("", file()).part("other", file());
    assert_eq!(refused(send("two.png", two).await), invalid);

    let mut many = Form::new();
    for at in 0..100 {
        many = many.text(format!("field {at}"), "x");
    }
    let many = many.part("", file());
    assert_eq!(refused(send("many.png", many).await), invalid);

    // None of them is large, and nobody asks for any.
    let mut large = Form::new();
    for at in 0..20 {
        large = large.text(format!("field {at}"), "x".repeat(60_000 + at));
    }
    let large = large.part("", file());
    assert_eq!(refused(send("large.png", large).await), invalid);

    // The head of a part counts as well.
    let endless = format!(
        "--b\r\nContent-Disposition: form-data; name=\"{}",
        "x".repeat(2 * 1024 * 1024)
    );
    let request = app
        .request(Method::POST, &format!("{BUCKET}/endless.png"))
        .bearer_auth(a.owner())
        .header("content-type", "multipart/form-data; boundary=b");
    assert_eq!(refused(Answer::of(request.body(endless)).await), invalid);
    assert_eq!(app.count("SELECT count(*) FROM storage_objects").await, 0);

    // A file may be larger than what is held of a form, and a field nobody asks for does no harm.
    let mut document = b"%PDF-1.7".to_vec();
    document.resize(3 * 1024 * 1024, 0);
    let form = Form::new()
        .text("cacheControl", "60")
        .text("note", "x")
        .part("", Part::bytes(document).file_name("x.pdf"))
        .text("metadata", r#"{"a":1}"#);
    send("x.pdf", form).await.expect(200);
    let kept: (i64, String, Value) =
        sqlx::query_as("SELECT size_bytes, cache_control, user_metadata FROM storage_objects")
            .fetch_one(&app.owner)
            .await
            .unwrap();
    let wanted = (3 * 1024 * 1024, "max-age=60".to_owned(), json!({ "a": 1 }));
    assert_eq!(kept, wanted);
}

#[tokio::test]
async fn a_question_mark_in_a_name_does_not_end_its_address() {
    let app = TestApp::start().await;
    let a = app.org("a").await;
    upload(&app, a.owner(), "why%3F.txt", "text/plain", "because")
        .await
        .expect(200);
    let get = async |path: &str| {
        Answer::of(app.request(Method::GET, &format!("/storage/v1{path}"))).await
    };
    let one = app
        .post(
            a.owner(),
            "/storage/v1/object/sign/whatsapp-media/why%3F.txt",
            &json!({ "expiresIn": 60 }),
        )
        .await
        .expect(200);
    let many = app
        .post(
            a.owner(),
            "/storage/v1/object/sign/whatsapp-media",
            &json!({ "expiresIn": 60, "paths": ["why?.txt"] }),
        )
        .await
        .expect(200);
    for url in [&one["signedURL"], &many[0]["signedURL"]] {
        let url = url.as_str().unwrap();
        assert_eq!(get(url).await.text, "because");
        // As supabase-js makes an address of it, with encodeURI.
        assert_eq!(get(&url.replace('%', "%25")).await.text, "because");
    }

    let up = "/storage/v1/object/upload/sign/whatsapp-media/what%3F.txt";
    let made = app.post(a.owner(), up, &json!({})).await.expect(200);
    let put = app.request(
        Method::PUT,
        &format!("/storage/v1{}", made["url"].as_str().unwrap()),
    );
    let put = put.header("content-type", "text/plain").body("that");
    let put = Answer::of(put).await.expect(200);
    assert_eq!(put["Key"], "whatsapp-media/what?.txt");

    let file = Part::bytes(PNG).file_name("which?.png");
    let request = app
        .request(Method::POST, "/api/media/upload")
        .bearer_auth(a.owner());
    let made = Answer::of(request.multipart(Form::new().part("file", file)))
        .await
        .expect(200);
    let url = made["media_url"].as_str().unwrap();
    assert!(url.ends_with("/which_.png"), "{url}");
    let fetched = app.http.get(url).send().await.unwrap();
    assert_eq!(fetched.bytes().await.unwrap(), PNG);
}

#[tokio::test]
async fn bytes_that_are_going_get_no_name_any_more() {
    let app = TestApp::start().await;
    let a = app.org("a").await;
    let bytes = Version {
        org_id: a.id,
        version: uuid::Uuid::now_v7(),
    };
    let db = &app.state().db;
    let mut tx = db.system().await.unwrap();
    storage::insert_reservation(&mut tx, bytes).await.unwrap();
    assert!(storage::renew_reservation(&mut tx, bytes).await.unwrap());
    tx.commit().await.unwrap();
    // As the job that removes them has it while it does.
    sqlx::query("UPDATE wasel.storage_garbage SET due_at = now() + interval '5 minutes'")
        .execute(&app.owner)
        .await
        .unwrap();
    let mut tx = db.system().await.unwrap();
    assert!(!storage::renew_reservation(&mut tx, bytes).await.unwrap());
    storage::delete_garbage(&mut tx, &[bytes]).await.unwrap();
    assert!(!storage::renew_reservation(&mut tx, bytes).await.unwrap());
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn the_same_goes_for_a_bucket_in_s3() {
    let simulator = Arc::new(
        Simulator::start((Ipv4Addr::LOCALHOST, 0).into())
            .await
            .unwrap(),
    );
    let start = async |secret: &'static str, endpoint: String| {
        TestApp::builder()
            .with_simulator(simulator.clone())
            .configure(move |config| {
                config.storage.url = Some("s3://files/of wasel".to_owned());
                config.storage.endpoint = Some(endpoint.try_into().unwrap());
                config.storage.access_key_id = Some(S3_ACCESS_KEY_ID.to_owned());
                config.storage.secret_access_key = Some(secret.to_owned().try_into().unwrap());
            })
            .start()
            .await
    };
    let s3 = simulator.s3();
    let app = start(S3_SECRET_ACCESS_KEY, simulator.s3_endpoint()).await;
    let a = app.org("a").await;
    text(&app, a.owner(), "small.txt", "0123456789").await;
    let ranged = app
        .request(Method::GET, &format!("{BUCKET}/small.txt"))
        .bearer_auth(a.owner());
    let ranged = Answer::of(ranged.header("range", "bytes=3-5")).await;
    assert_eq!((ranged.status, ranged.text.as_str()), (206, "345"));
    assert_eq!(
        s3.completed_uploads(),
        0,
        "what is small goes in one request"
    );

    let mut large = b"%PDF-1.7".to_vec();
    large.resize(12 * 1024 * 1024 + 17, 7);
    upload(
        &app,
        a.owner(),
        "large.pdf",
        "application/pdf",
        large.clone(),
    )
    .await
    .expect(200);
    assert_eq!((s3.completed_uploads(), s3.open_uploads()), (1, 0));
    let got = app
        .request(Method::GET, &format!("{BUCKET}/large.pdf"))
        .bearer_auth(a.owner());
    let got = got.send().await.unwrap().bytes().await.unwrap();
    assert!(got == large, "{} of {}", got.len(), large.len());
    assert!(
        s3.keys()
            .iter()
            .all(|key| key.starts_with("files/of%20wasel/storage/")),
        "{:?}",
        s3.keys()
    );

    let body = json!({ "bucketId": "whatsapp-media", "sourceKey": "small.txt", "destinationKey": "copy.txt" });
    app.post(a.owner(), "/storage/v1/object/copy", &body)
        .await
        .expect(200);
    assert_eq!(s3.keys().len(), 3);
    // Refused half way: the parts go at once.
    let mut picture = PNG.to_vec();
    picture.resize(5 * 1024 * 1024 + 100_000, 0);
    let chunks: Vec<std::io::Result<Vec<u8>>> = picture
        .chunks(50_000)
        .map(|chunk| Ok(chunk.to_vec()))
        .collect();
    let stream = reqwest::Body::wrap_stream(futures_util::stream::iter(chunks));
    assert_eq!(
        refused(upload(&app, a.owner(), "p.png", "image/png", stream).await),
        is("413", "EntityTooLarge")
    );
    wait_until("no parts are left", async || {
        (s3.open_uploads() == 0).then_some(())
    })
    .await;
    let remove = app.request(Method::DELETE, BUCKET).bearer_auth(a.owner());
    Answer::of(remove.json(&json!({ "prefixes": ["small.txt", "large.pdf"] })))
        .await
        .expect(200);
    wait_until("two objects are gone", async || {
        (s3.keys().len() == 1).then_some(())
    })
    .await;
    assert_eq!(
        app.get(a.owner(), &format!("{BUCKET}/copy.txt")).await.text,
        "0123456789"
    );

    let wrong = start("another key", simulator.s3_endpoint()).await;
    let b = wrong.org("b").await;
    let answer = upload(&wrong, b.owner(), "x.txt", "text/plain", "x").await;
    assert_eq!(
        (answer.status, answer.body["statusCode"].clone()),
        (503, json!("503"))
    );
    assert_eq!(wrong.count("SELECT count(*) FROM storage_objects").await, 0);
}
