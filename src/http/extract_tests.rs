use axum::Router;
use axum::http::StatusCode;
use axum::routing::{get, post};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::*;

#[derive(Deserialize, Serialize, Debug)]
#[serde(deny_unknown_fields)]
struct Order {
    name: String,
    seats: Vec<Seat>,
}

#[derive(Deserialize, Serialize, Debug)]
#[serde(deny_unknown_fields)]
struct Seat {
    row: u8,
}

#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
struct Filter {
    days: Option<u8>,
    #[serde(rename = "limit")]
    _limit: Option<String>,
}

/// A state that is impatient with slow bodies.
#[derive(Clone)]
struct Impatient;

impl BodyDeadline for Impatient {
    fn body_timeout(&self) -> Duration {
        Duration::from_millis(50)
    }
}

fn router() -> Router {
    Router::new()
        .route("/json", post(async |Json(body): Json<Order>| Json(body)))
        .route(
            "/big",
            post(async |BigJson(body): BigJson<Order, VENUE_BYTES_MAX>| Json(body.name.len())),
        )
        .route("/none", post(async |_: NoBody| StatusCode::NO_CONTENT))
        .route(
            "/optional",
            post(async |OptionalBody(body): OptionalBody<Seat>| Json(body)),
        )
        .route("/hash", post(async |body: Hashed<Value>| Json(body.hash)))
        .route(
            "/holds/{id}",
            get(async |Path(id): Path<HoldId>| id.to_string()),
        )
        .route(
            "/holds/{id}/seats/{seat}",
            get(async |Path((_, seat)): Path<(HoldId, String)>| seat),
        )
        .route(
            "/query",
            get(async |Query(filter): Query<Filter>| Json(filter.days)),
        )
        .route("/page", get(async |page: Page| Json(page.limit)))
        .route(
            "/key",
            get(async |key: IdempotencyKey| key.required().map(Json)),
        )
        .with_state(Impatient)
}

/// Status, and the code and `errors[0].field` of the problem if it is one.
async fn call(request: Request) -> (u16, String, String) {
    let response = router().oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    match response.extensions().get::<Problem>() {
        Some(problem) => {
            let field = problem
                .member("errors")
                .map(|errors| errors[0]["field"].as_str().unwrap().to_owned());
            (
                status,
                problem.code().to_string(),
                field.unwrap_or_default(),
            )
        }
        None => {
            let body = axum::body::to_bytes(response.into_body(), 1 << 20)
                .await
                .unwrap();
            (
                status,
                String::from_utf8(body.to_vec()).unwrap(),
                String::new(),
            )
        }
    }
}

async fn post_text(
    path: &str,
    content_type: Option<&str>,
    body: impl Into<Body>,
) -> (u16, String, String) {
    let mut request = Request::post(path);
    if let Some(content_type) = content_type {
        request = request.header("content-type", content_type);
    }
    call(request.body(body.into()).unwrap()).await
}

async fn get_path(path: &str) -> (u16, String, String) {
    call(Request::get(path).body(Body::empty()).unwrap()).await
}

fn refused(status: u16, code: &str, field: &str) -> (u16, String, String) {
    (status, code.to_owned(), field.to_owned())
}

#[tokio::test]
async fn a_body_of_the_right_shape_is_taken_with_or_without_a_content_type() {
    let good = json!({ "name": "a", "seats": [{ "row": 1 }] }).to_string();
    for content_type in [
        None,
        Some("application/json"),
        Some("Application/JSON; charset=utf-8"),
    ] {
        assert_eq!(
            post_text("/json", content_type, good.clone()).await,
            refused(200, &good, "")
        );
    }
    let other = post_text("/json", Some("text/plain"), good).await;
    assert_eq!(other, refused(415, "unsupported-media-type", ""));
}

#[tokio::test]
async fn an_empty_or_unparsable_body_is_invalid_json() {
    // The fifth has a wrong shape before its syntax breaks.
    for body in ["", " ", "{", "nope", r#"{"x": 1, oops"#, "{}{}"] {
        assert_eq!(
            post_text("/json", None, body).await,
            refused(400, "invalid-json", ""),
            "{body}"
        );
    }
    assert_eq!(
        post_text("/json", None, vec![b'"', 0xff, b'"']).await.0,
        400
    );
    // An empty body is none, whatever its Content-Type.
    assert_eq!(post_text("/json", Some("text/plain"), "").await.0, 400);
}

#[tokio::test]
async fn a_wrong_shape_names_the_field() {
    for (body, field) in [
        (r#"{"name": "a"}"#, "seats"),
        (r#"{"name": 1, "seats": []}"#, "name"),
        (r#"{"name": "a", "seats": [], "price": 1}"#, "price"),
        (r#"{"name": "a", "name": "b", "seats": []}"#, "name"),
        (
            r#"{"name": "a", "seats": [{"row": 1}, {"row": 300}]}"#,
            "seats[1].row",
        ),
        (r#"{"name": "a", "seats": [{}]}"#, "seats[0].row"),
        ("[]", ""),
    ] {
        assert_eq!(
            post_text("/json", None, body).await,
            refused(422, "invalid-request", field),
            "{body}"
        );
    }
}

#[tokio::test]
async fn a_nul_is_refused_but_an_escaped_backslash_before_u0000_is_not_one() {
    let nul = r#"{"name": "a\u0000b", "seats": []}"#;
    assert_eq!(
        post_text("/json", None, nul).await,
        refused(422, "invalid-request", "name")
    );
    let none = r#"{"name": "a\\u0000b", "seats": []}"#;
    assert_eq!(post_text("/json", None, none).await.0, 200);
    let both = r#"{"name": "a\\\u0000b", "seats": []}"#;
    assert_eq!(post_text("/json", None, both).await.0, 422);
    assert_eq!(get_path("/query?days=%001").await.0, 422);
    assert_eq!(
        get_path("/holds/019c0000-0000-7000-8000-000000000000/seats/A%00")
            .await
            .0,
        404
    );
}

#[tokio::test]
async fn a_body_over_its_limit_is_refused_where_others_may_be_larger() {
    let body = json!({ "name": "a".repeat(BODY_BYTES_MAX), "seats": [] }).to_string();
    assert_eq!(
        post_text("/json", None, body.clone()).await,
        refused(413, "payload-too-large", "")
    );
    assert_eq!(post_text("/big", None, body.clone()).await.0, 200);
    // Without a Content-Length, in pieces.
    let half = body.len() / 2;
    let pieces = || {
        let pieces = [body[..half].to_owned(), body[half..].to_owned()];
        Body::from_stream(futures_util::stream::iter(
            pieces.map(Ok::<_, std::io::Error>),
        ))
    };
    assert_eq!(post_text("/json", None, pieces()).await.0, 413);
    assert_eq!(post_text("/big", None, pieces()).await.0, 200);
}

#[tokio::test]
async fn a_slow_body_ends_with_408() {
    let body = Body::from_stream(futures_util::stream::pending::<Result<Bytes, std::io::Error>>());
    assert_eq!(
        post_text("/json", None, body).await,
        refused(408, "request-timeout", "")
    );
}

#[tokio::test]
async fn a_call_without_fields_takes_nothing_or_an_empty_object() {
    for body in ["", "{}"] {
        assert_eq!(post_text("/none", None, body).await.0, 204);
    }
    assert_eq!(post_text("/none", Some("text/plain"), "").await.0, 204);
    assert_eq!(
        post_text("/none", None, r#"{"a": 1}"#).await,
        refused(422, "invalid-request", "a")
    );
    assert_eq!(post_text("/none", None, "x").await.0, 400);
    assert_eq!(
        post_text("/optional", None, "").await,
        refused(200, "null", "")
    );
    assert_eq!(
        post_text("/optional", None, r#"{"row": 2}"#).await,
        refused(200, r#"{"row":2}"#, "")
    );
}

#[tokio::test]
async fn the_same_json_hashes_alike_however_it_is_written() {
    let one = post_text("/hash", None, r#"{"a": 1, "b": [true, "x"]}"#).await;
    assert_eq!(
        one,
        post_text("/hash", None, r#"{ "b":[ true,"\u0078" ],"a":1}"#).await
    );
    assert_ne!(
        one,
        post_text("/hash", None, r#"{"a": 1, "b": [true, "y"]}"#).await
    );
}

#[tokio::test]
async fn a_malformed_id_names_nothing() {
    assert_eq!(
        get_path("/holds/12").await,
        refused(404, "hold-not-found", "")
    );
    assert_eq!(
        get_path("/holds/12/seats/A").await,
        refused(404, "hold-not-found", "")
    );
    assert_eq!(get_path("/holds/%ff").await.0, 404);
    let id = "019c0000-0000-7000-8000-000000000000";
    assert_eq!(
        get_path(&format!("/holds/{id}")).await,
        refused(200, id, "")
    );
}

#[tokio::test]
async fn a_wrong_parameter_is_named() {
    assert_eq!(get_path("/query?days=7").await, refused(200, "7", ""));
    assert_eq!(
        get_path("/query?days=x").await,
        refused(422, "invalid-request", "days")
    );
    assert_eq!(get_path("/query?day=7").await.0, 422);
}

#[tokio::test]
async fn a_page_has_20_items_unless_told_and_at_most_100() {
    assert_eq!(get_path("/page").await.1, "20");
    assert_eq!(get_path("/page?limit=100&status=x").await.1, "100");
    for limit in ["0", "101", "-1", "x", "99999999999"] {
        let answer = get_path(&format!("/page?limit={limit}")).await;
        assert_eq!(answer, refused(422, "invalid-request", "limit"));
    }
}

#[test]
fn a_cursor_reads_back_and_a_forged_one_is_refused() {
    let page = Page::first(2);
    assert_eq!(page.after::<(i64, String)>().unwrap(), None);
    let list = List::page(vec![1, 2, 3], &page, |item| (*item, "x"));
    assert_eq!(list.items, [1, 2]);
    let next = Page {
        limit: 2,
        cursor: list.next_cursor,
    };
    assert_eq!(
        next.after::<(i64, String)>().unwrap(),
        Some((2, "x".to_owned()))
    );
    assert_eq!(
        List::page(vec![1, 2], &page, |item| *item).next_cursor,
        None
    );
    for forged in ["x", "!!", "AAAA", &"A".repeat(2000)] {
        let page = Page {
            limit: 2,
            cursor: Some(forged.to_owned()),
        };
        assert_eq!(
            page.after::<(i64, String)>().unwrap_err().code(),
            Code::InvalidRequest
        );
    }
}

#[tokio::test]
async fn an_idempotency_key_is_1_to_255_visible_ascii_characters() {
    let with = |key: &str| {
        call(
            Request::get("/key")
                .header("Idempotency-Key", key)
                .body(Body::empty())
                .unwrap(),
        )
    };
    assert_eq!(with("k-1").await, refused(200, "\"k-1\"", ""));
    assert_eq!(with(&"k".repeat(255)).await.0, 200);
    for key in ["", "a b", &"k".repeat(256)] {
        assert_eq!(
            with(key).await,
            refused(422, "invalid-request", "Idempotency-Key")
        );
    }
    assert_eq!(
        get_path("/key").await,
        refused(400, "idempotency-key-required", "")
    );
}
