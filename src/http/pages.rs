//! What a browser opens: the storefront, the operators' page, the page behind each
//! problem's `type`, and the documentation. All of it is in the binary; no page asks another host
//! for anything.

use std::fmt::Write as _;

use axum::Router;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use utoipa_swagger_ui::SwaggerUi;

use super::error::{Code, Problem};
use super::extract::Path;

/// Scripts, styles and calls of this server alone; posters from anywhere over
/// https. No inline script, so that nothing that slips into a page can run.
const CONTENT_SECURITY_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: https:; \
     connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
);

/// The same for the operators' page, which shows no pictures.
const OPS_SECURITY_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

/// A file of the operators' page.
macro_rules! ops_file {
    ($name:literal, $content_type:expr) => {
        (
            concat!("/web/ops/", $name),
            $content_type,
            include_str!(concat!("../../web/ops/", $name)),
        )
    };
}

/// Path, type, text.
const OPS_FILES: [(&str, &str, &str); 11] = [
    ("/ops", HTML, include_str!("../../web/ops/index.html")),
    ops_file!("ops.css", CSS),
    ops_file!("main.js", JAVASCRIPT),
    ops_file!("api.js", JAVASCRIPT),
    ops_file!("all.js", JAVASCRIPT),
    ops_file!("cluster.js", JAVASCRIPT),
    ops_file!("draw.js", JAVASCRIPT),
    ops_file!("drill.js", JAVASCRIPT),
    ops_file!("format.js", JAVASCRIPT),
    ops_file!("panels.js", JAVASCRIPT),
    ops_file!("series.js", JAVASCRIPT),
];

const JAVASCRIPT: &str = "text/javascript; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";
const CACHE: &str = "public, max-age=60";

/// `GET /`, its scripts and styles, and `GET /problems/{code}`. They belong
/// beside the API, which the storefront calls.
pub fn router<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new()
        .route(
            "/",
            get(async || page(HTML, include_str!("../../web/index.html"))),
        )
        .route(
            "/web/storefront.js",
            get(async || page(JAVASCRIPT, include_str!("../../web/storefront.js"))),
        )
        .route(
            "/web/style.css",
            get(async || page(CSS, include_str!("../../web/style.css"))),
        )
        .route("/problems", get(async || page(HTML, problems_page())))
        .route("/problems/{code}", get(problem))
}

/// `GET /ops`, the operators' page, and what it loads.
pub fn ops<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let mut router = Router::new();
    for (path, content_type, text) in OPS_FILES {
        let answer = move || {
            let mut answer = page(content_type, text);
            answer
                .headers_mut()
                .insert(header::CONTENT_SECURITY_POLICY, OPS_SECURITY_POLICY);
            std::future::ready(answer)
        };
        router = router.route(path, get(answer));
    }
    router
}

/// `GET /openapi.json` and `GET /docs`, which reads it.
pub fn docs<S: Clone + Send + Sync + 'static>(openapi_json: String) -> Router<S> {
    let json = Bytes::from(openapi_json);
    Router::new()
        .merge(SwaggerUi::new("/docs").config(utoipa_swagger_ui::Config::from("/openapi.json")))
        .route(
            "/openapi.json",
            get(async move || {
                (
                    [
                        (header::CONTENT_TYPE, "application/json"),
                        (header::CACHE_CONTROL, CACHE),
                    ],
                    json.clone(),
                )
            }),
        )
}

async fn problem(Path(code): Path<String>) -> Result<Response, Problem> {
    match code.parse::<Code>() {
        Ok(code) => Ok(page(HTML, problem_page(code))),
        Err(_) => Err(Problem::new(Code::NotFound)),
    }
}

fn page(content_type: &'static str, body: impl IntoResponse) -> Response {
    const NOSNIFF: (HeaderName, HeaderValue) = (
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(content_type)),
        (header::CACHE_CONTROL, HeaderValue::from_static(CACHE)),
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        NOSNIFF,
    ];
    (headers, body).into_response()
}

/// A page around `main`, which must be HTML already.
fn document(title: &str, main: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>{title} · Onsale</title><link rel=\"icon\" href=\"data:,\">\
         <link rel=\"stylesheet\" href=\"/web/style.css\"></head>\
         <body><main>{main}</main></body></html>\n",
        title = escaped(title),
    )
}

fn problem_page(code: Code) -> String {
    let main = format!(
        "<h1>{}</h1><p><code>{code}</code> · HTTP {}</p><p>{}</p><p><a href=\"/problems\">All problems</a></p>",
        escaped(code.title()),
        code.status().as_u16(),
        with_code(code.explanation()),
    );
    document(code.title(), &main)
}

fn problems_page() -> String {
    let mut rows = String::from("<h1>Problems</h1><ul>");
    for code in Code::ALL {
        // Writing to a String can't fail.
        let _ = write!(
            rows,
            "<li><a href=\"/problems/{code}\"><code>{code}</code></a> ({}): {}</li>",
            code.status().as_u16(),
            escaped(code.title()),
        );
    }
    rows.push_str("</ul>");
    document("Problems", &rows)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

/// Escaped, with what stands between backticks as code.
fn with_code(text: &str) -> String {
    let mut html = String::new();
    for (index, part) in escaped(text).split('`').enumerate() {
        if index % 2 == 1 {
            let _ = write!(html, "<code>{part}</code>");
        } else {
            html.push_str(part);
        }
    }
    html
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::extract::Request;
    use tower::ServiceExt as _;

    use super::*;

    async fn get_text(path: &str) -> (u16, Response<()>, String) {
        let docs = docs(r#"{"openapi":"3.1.0"}"#.to_owned());
        let router = router::<()>().merge(ops()).merge(docs);
        let response = router
            .oneshot(Request::get(path).body(Body::empty()).unwrap())
            .await
            .unwrap();
        let (parts, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, 1 << 24).await.unwrap();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        (parts.status.as_u16(), Response::from_parts(parts, ()), text)
    }

    #[tokio::test]
    async fn every_problem_has_a_page_at_its_type() {
        for code in Code::ALL {
            let (status, head, text) = get_text(&format!("/problems/{code}")).await;
            assert_eq!(status, 200);
            assert_eq!(head.headers()[header::CONTENT_TYPE], HTML);
            assert!(text.contains(&format!("<code>{code}</code>")), "{text}");
            assert!(!text.contains('`'), "{text}");
        }
        assert_eq!(get_text("/problems/no-such-code").await.0, 404);
    }

    #[tokio::test]
    async fn no_page_asks_another_host_for_anything() {
        let pages = [
            "/",
            "/web/storefront.js",
            "/web/style.css",
            "/problems",
            "/problems/internal",
        ];
        let of_operators = OPS_FILES.map(|(path, _, _)| path);
        for path in pages.into_iter().chain(of_operators) {
            let (status, head, text) = get_text(path).await;
            assert_eq!(status, 200, "{path}");
            assert!(
                !text.contains("http://") && !text.contains("https://"),
                "{path}"
            );
            assert!(
                !text.contains("<script>") && !text.contains("style=\""),
                "{path}"
            );
            assert!(
                head.headers().contains_key(header::CONTENT_SECURITY_POLICY),
                "{path}"
            );
        }
    }

    #[tokio::test]
    async fn all_that_the_operators_page_loads_is_there() {
        let served = OPS_FILES.map(|(path, _, _)| path);
        let mut wanted = 0;
        for (path, _, text) in OPS_FILES {
            let loads = text.lines().filter_map(|line| {
                let quoted = line
                    .split_once(" from \"./")
                    .or_else(|| line.split_once("\"/web/ops/"))?;
                quoted.1.split('"').next()
            });
            for name in loads {
                wanted += 1;
                let loaded = format!("/web/ops/{name}");
                assert!(served.contains(&loaded.as_str()), "{path} loads {loaded}");
            }
        }
        assert!(wanted > OPS_FILES.len(), "{wanted}");
        let policy = get_text("/ops").await.1.headers()[header::CONTENT_SECURITY_POLICY].clone();
        assert!(!policy.to_str().unwrap().contains("unsafe"));
    }

    #[tokio::test]
    async fn the_documentation_is_in_the_binary_and_reads_our_own_openapi() {
        assert_eq!(get_text("/docs").await.0, 303);
        let (status, _, text) = get_text("/docs/").await;
        assert_eq!(status, 200);
        assert!(text.contains("swagger-ui"));
        let (status, _, text) = get_text("/docs/swagger-initializer.js").await;
        assert_eq!(status, 200);
        assert!(text.contains("/openapi.json"), "{text}");
        assert_eq!(get_text("/openapi.json").await.2, r#"{"openapi":"3.1.0"}"#);
    }
}
