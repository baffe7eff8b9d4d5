//! Accounts: signing up, in and out, tokens, one's own data.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::common::process::sign_up;
use crate::harness::{Client, TestServer, list, text};

const PASSWORD: &str = "a long enough password";

fn fresh_email() -> String {
    format!("{}@example.com", Uuid::new_v4())
}

async fn session_of(client: &Client, email: &str) -> Value {
    client
        .post(
            "/sessions",
            &json!({ "email": email, "password": PASSWORD }),
        )
        .ok(200)
        .await
}

#[tokio::test]
async fn who_signs_up_can_sign_in_and_read_oneself() {
    let anyone = TestServer::shared().await.anyone();
    let email = fresh_email();
    let user = anyone
        .post(
            "/users",
            &json!({ "email": email, "password": PASSWORD, "name": "Kim Ji-woo" }),
        )
        .ok(201)
        .await;
    assert_eq!(user["email"], email);
    assert_eq!(user["name"], "Kim Ji-woo");
    assert_eq!(user["roles"], json!(["customer"]));
    let id: Uuid = text(&user, "user_id").parse().unwrap();
    assert_eq!(id.get_version_num(), 7);

    let session = session_of(&anyone, &email).await;
    assert_eq!(session["token_type"], "Bearer");
    assert_eq!(session["expires_in"], 1_800);
    for token in ["access_token", "refresh_token"] {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        assert!(text(&session, token).chars().all(allowed), "{token}");
    }

    let signed_in = anyone.with_token(text(&session, "access_token"));
    let answer = signed_in.get("/me").send().await;
    answer.assert_status(200);
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let me = answer.json();
    for member in ["user_id", "email", "name", "roles"] {
        assert_eq!(me[member], user[member], "{member}");
    }
}

#[tokio::test]
async fn an_email_has_one_account() {
    let anyone = TestServer::shared().await.anyone();
    let body = json!({ "email": fresh_email(), "password": PASSWORD, "name": "First" });
    anyone.post("/users", &body).ok(201).await;
    anyone
        .post("/users", &body)
        .problem(409, "email-taken")
        .await;
    let mut shouted = body.clone();
    shouted["email"] = text(&body, "email").to_uppercase().into();
    anyone
        .post("/users", &shouted)
        .problem(409, "email-taken")
        .await;
}

#[tokio::test]
async fn a_wrong_password_and_an_unknown_email_look_the_same() {
    let anyone = TestServer::shared().await.anyone();
    let email = fresh_email();
    anyone
        .post(
            "/users",
            &json!({ "email": email, "password": PASSWORD, "name": "A" }),
        )
        .ok(201)
        .await;
    let mut answers = Vec::new();
    for email in [email, fresh_email()] {
        let mut problem = anyone
            .post(
                "/sessions",
                &json!({ "email": email, "password": "wrong one" }),
            )
            .problem(401, "bad-credentials")
            .await;
        problem["request_id"] = Value::Null;
        answers.push(problem);
    }
    assert_eq!(answers[0], answers[1]);
}

#[tokio::test]
async fn after_ten_failed_sign_ins_an_email_must_wait() {
    let anyone = TestServer::shared().await.anyone();
    let body = json!({ "email": fresh_email(), "password": "wrong one" });
    for _ in 0..10 {
        anyone
            .post("/sessions", &body)
            .problem(401, "bad-credentials")
            .await;
    }
    let answer = anyone.post("/sessions", &body).send().await;
    answer.assert_problem(429, "rate-limited");
    assert!(
        answer
            .headers
            .keys()
            .any(|name| name.as_str().starts_with("ratelimit")),
        "RateLimit headers: {:?}",
        answer.headers
    );
    // The limit is of that e-mail, not of everybody.
    anyone
        .post(
            "/sessions",
            &json!({ "email": fresh_email(), "password": "wrong one" }),
        )
        .problem(401, "bad-credentials")
        .await;
}

#[tokio::test]
async fn a_refresh_token_works_once_and_a_spent_one_ends_the_session() {
    let anyone = TestServer::shared().await.anyone();
    let email = fresh_email();
    sign_up(&anyone, &email, PASSWORD).await;
    let first = session_of(&anyone, &email).await;
    let spent = json!({ "refresh_token": first["refresh_token"] });
    let second = anyone.post("/sessions/refresh", &spent).ok(200).await;
    assert_ne!(first["refresh_token"], second["refresh_token"]);
    anyone
        .with_token(text(&second, "access_token"))
        .get("/me")
        .ok(200)
        .await;
    anyone
        .post("/sessions/refresh", &spent)
        .problem(401, "session-revoked")
        .await;
    // The thief's use of the old one also ended the new one.
    anyone
        .post(
            "/sessions/refresh",
            &json!({ "refresh_token": second["refresh_token"] }),
        )
        .problem(401, "session-revoked")
        .await;
}

#[tokio::test]
async fn a_refresh_token_used_twice_at_once_gives_one_pair_at_most() {
    let anyone = TestServer::shared().await.anyone();
    let email = fresh_email();
    sign_up(&anyone, &email, PASSWORD).await;
    let session = session_of(&anyone, &email).await;
    let body = json!({ "refresh_token": session["refresh_token"] });
    let calls = (0..8).map(|_| anyone.post("/sessions/refresh", &body).send());
    let answers = futures_util::future::join_all(calls).await;
    let pairs = answers.iter().filter(|a| a.status == 200).count();
    assert_eq!(pairs, 1);
}

#[tokio::test]
async fn signing_out_ends_the_refresh_family() {
    let anyone = TestServer::shared().await.anyone();
    let email = fresh_email();
    sign_up(&anyone, &email, PASSWORD).await;
    let session = session_of(&anyone, &email).await;
    let other = session_of(&anyone, &email).await;
    anyone
        .with_token(text(&session, "access_token"))
        .delete("/sessions/current")
        .ok(204)
        .await;
    anyone
        .post(
            "/sessions/refresh",
            &json!({ "refresh_token": session["refresh_token"] }),
        )
        .problem(401, "session-revoked")
        .await;
    // Another device stays signed in.
    anyone
        .post(
            "/sessions/refresh",
            &json!({ "refresh_token": other["refresh_token"] }),
        )
        .ok(200)
        .await;
}

#[tokio::test]
async fn identity_comes_from_a_genuine_token_alone() {
    let server = TestServer::shared().await;
    let anyone = server.anyone();
    let victim = server.buyer_with_money(5_000).await;
    let good = victim.token().to_owned();
    let (head, signature) = good.rsplit_once('.').unwrap();
    let flipped = if signature.starts_with('A') { "B" } else { "A" };
    let forged = [
        String::new(),
        "nonsense".to_owned(),
        format!("{head}.{flipped}{}", &signature[1..]),
        format!("{head}."),
        head.to_owned(),
        format!("{good}x"),
        // {"alg":"none"}
        format!(
            "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{}.",
            good.split('.').nth(1).unwrap()
        ),
        "x".repeat(6_000),
    ];
    anyone.get("/wallet").problem(401, "unauthorized").await;
    for token in &forged {
        let answer = anyone.with_token(token).get("/wallet").send().await;
        assert_eq!(answer.status, 401, "{token}");
        answer.assert_any_problem();
        assert!(answer.header("www-authenticate").is_some(), "{token}");
    }
    // A header that names somebody is worth nothing.
    let stranger = server.buyer();
    let claims = good.split('.').nth(1).unwrap();
    let wallet = stranger
        .get("/wallet")
        .header("x-user-id", claims)
        .header("x-user", claims)
        .ok(200)
        .await;
    assert_eq!(wallet["balance"], 0);
    anyone
        .get("/wallet")
        .header("x-user-id", claims)
        .problem(401, "unauthorized")
        .await;
}

#[tokio::test]
async fn a_role_that_may_not_is_403_and_no_token_is_401() {
    let server = TestServer::shared().await;
    let body = json!({ "name": "Mine", "sections": [{ "name": "G", "general_admission": 1 }] });
    for (client, status) in [(server.anyone(), 401), (server.buyer(), 403)] {
        let answer = client.post("/admin/venues", &body).send().await;
        answer.assert_status(status);
        answer.assert_any_problem();
    }
    // What is for admins alone is not for organizers.
    for client in [server.buyer(), server.organizer()] {
        client
            .get("/admin/users?email=a@example.com")
            .problem(403, "forbidden")
            .await;
    }
}

#[tokio::test]
async fn an_admin_changes_roles_and_that_ends_sessions() {
    let server = TestServer::shared().await;
    let anyone = server.anyone();
    let email = fresh_email();
    let user = sign_up(&anyone, &email, PASSWORD).await;
    let session = session_of(&anyone, &email).await;
    let id = text(&user.get("/me").ok(200).await, "user_id").to_owned();

    let found = server
        .admin()
        .get(&format!("/admin/users?email={email}"))
        .ok(200)
        .await;
    assert_eq!(list(&found, "items")[0]["user_id"], id);

    server
        .admin()
        .put(
            &format!("/admin/users/{id}/roles"),
            &json!({ "roles": ["customer", "organizer"] }),
        )
        .ok(200)
        .await;
    let answer = anyone
        .post(
            "/sessions/refresh",
            &json!({ "refresh_token": session["refresh_token"] }),
        )
        .send()
        .await;
    assert_eq!(answer.status, 401);
    let again = session_of(&anyone, &email).await;
    let organizer = anyone.with_token(text(&again, "access_token"));
    assert_eq!(
        organizer.get("/me").ok(200).await["roles"],
        json!(["customer", "organizer"])
    );
    organizer
        .post(
            "/admin/venues",
            &json!({ "name": "Mine", "sections": [{ "name": "G", "general_admission": 1 }] }),
        )
        .ok(201)
        .await;
    server
        .admin()
        .put(
            &format!("/admin/users/{id}/roles"),
            &json!({ "roles": ["root"] }),
        )
        .problem(422, "invalid-request")
        .await;
}

#[tokio::test]
async fn a_person_can_rename_export_and_delete_oneself_and_the_orders_stay() {
    let server = TestServer::shared().await;
    let anyone = server.anyone();
    let email = fresh_email();
    let user = sign_up(&anyone, &email, PASSWORD).await;
    let renamed = user.patch("/me", &json!({ "name": "Lee" })).ok(200).await;
    assert_eq!(renamed["name"], "Lee");
    assert_eq!(user.get("/me").ok(200).await["name"], "Lee");

    user.charge(1_000_000).await;
    let scene = server.small().await;
    let hold = user.hold_seats(&scene.timetable, &["F1-A-1"]).await;
    let order = user.order(text(&hold, "hold_id")).ok(201).await;
    let export = user.get("/me/export").ok(200).await.to_string();
    assert!(export.contains(&email));
    assert!(export.contains(text(&order, "order_id")));

    let answer = user.delete("/me").send().await;
    assert!(matches!(answer.status, 200 | 204), "{}", answer.text());
    anyone
        .post(
            "/sessions",
            &json!({ "email": email, "password": PASSWORD }),
        )
        .problem(401, "bad-credentials")
        .await;
    let map = anyone.map(&scene.timetable).await;
    assert_eq!(map["sold"], 1);
    // The address is free again.
    sign_up(&anyone, &email, PASSWORD).await;
}

#[tokio::test]
async fn what_is_wrong_with_a_sign_up_is_told_by_field() {
    let anyone = TestServer::shared().await.anyone();
    let good = json!({ "email": fresh_email(), "password": PASSWORD, "name": "A" });
    let wrong = [
        ("email", json!("no at sign")),
        ("email", json!("")),
        ("email", json!(format!("{}@example.com", "x".repeat(400)))),
        ("email", json!("nul\u{0}@example.com")),
        ("password", json!("")),
        ("password", json!("x".repeat(10_000))),
        ("name", json!("")),
        ("name", json!("x".repeat(10_000))),
        ("name", json!("a\u{0}b")),
        ("name", json!(7)),
        ("roles", json!(["admin"])),
    ];
    for (field, value) in wrong {
        let mut body = good.clone();
        body[field] = value.clone();
        let problem = anyone
            .post("/users", &body)
            .problem(422, "invalid-request")
            .await;
        let named = list(&problem, "errors")
            .iter()
            .any(|error| text(error, "field").contains(field));
        assert!(named, "{field} = {value}: {problem}");
    }
    anyone.post("/users", &good).ok(201).await;
}
