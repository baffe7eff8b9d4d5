//! One purchase is one trace, from the request to the tickets: read by a little
//! collector of OTLP/HTTP in this process, from a real server.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use tempfile::TempDir;

use crate::busy::on_services;
use crate::common::client::Client;
use crate::common::eventually;
use crate::common::process::{ServerProcess, Settings, sign_up};
use crate::common::scene::Show;
use crate::database::Database;

/// Spans are sent once a second; with slack.
const TRACE_LIMIT: Duration = Duration::from_secs(60);

/// As long as nothing must come.
const QUIET: Duration = Duration::from_secs(4);

/// What each of its parts is for a purchase.
const PARTS: [&str; 5] = ["server", "actor", "lane", "relay", "consumer"];

/// Takes what servers export.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Span>>>);

async fn take(State(collector): State<Collector>, body: Bytes) {
    let request = ExportTraceServiceRequest::decode(body).expect("OTLP");
    let mut spans = collector.0.lock().unwrap();
    for resource in request.resource_spans {
        let told = resource.resource.expect("a resource").attributes;
        assert!(told.iter().any(|pair| pair.key == "service.name"));
        spans.extend(
            resource
                .scope_spans
                .into_iter()
                .flat_map(|scope| scope.spans),
        );
    }
}

impl Collector {
    /// Listens on any port; gives the address, too.
    async fn start() -> (Self, String) {
        let collector = Self::default();
        let routes = Router::new().route("/v1/traces", post(take));
        let routes = routes.with_state(collector.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        (collector, url)
    }

    /// All spans of a trace.
    fn of(&self, trace: &str) -> Vec<Span> {
        let spans = self.0.lock().unwrap();
        let of_it = spans.iter().filter(|span| hex(&span.trace_id) == trace);
        of_it.cloned().collect()
    }

    /// The traces that have a span with this name.
    fn with(&self, name: &str) -> BTreeSet<String> {
        let spans = self.0.lock().unwrap();
        let of_it = spans.iter().filter(|span| span.name == name);
        of_it.map(|span| hex(&span.trace_id)).collect()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn told<'a>(span: &'a Span, key: &str) -> Option<&'a Value> {
    let pair = span.attributes.iter().find(|pair| pair.key == key)?;
    pair.value.as_ref()?.value.as_ref()
}

/// Which part of the program a span is of.
fn part(span: &Span) -> String {
    if told(span, "http.route").is_some() {
        return "server".to_owned();
    }
    match told(span, "onsale.part") {
        Some(Value::StringValue(part)) => part.clone(),
        other => panic!("{}: {other:?}", span.name),
    }
}

struct World {
    collector: Collector,
    server: ServerProcess,
    buyer: Client,
    timetable: String,
    _folder: TempDir,
}

impl World {
    async fn start(on: impl FnOnce(Settings) -> Settings, sample: &str) -> Self {
        let (collector, url) = Collector::start().await;
        let folder = TempDir::new().unwrap();
        let settings = on(Settings::in_folder(folder.path()))
            .env("ONSALE_TELEMETRY__OTLP_URL", &url)
            .env("ONSALE_TELEMETRY__TRACE_SAMPLE", sample);
        let server = ServerProcess::start(&settings);
        let scene = Show::small().open(&server.admin().await).await;
        let buyer = sign_up(
            &server.client(),
            "buyer@example.com",
            "a long enough password",
        )
        .await;
        buyer.charge(10_000_000).await;
        Self {
            collector,
            server,
            buyer,
            timetable: scene.timetable,
            _folder: folder,
        }
    }

    /// Buys a seat; its order comes with this header.
    async fn buy(&self, seat: &str, traceparent: Option<&str>) -> String {
        let hold = self.buyer.hold_seats(&self.timetable, &[seat]).await;
        let hold = hold["hold_id"].as_str().unwrap();
        let mut order = self.buyer.order(hold);
        if let Some(traceparent) = traceparent {
            order = order.header("traceparent", traceparent);
        }
        let order = order.ok(201).await;
        order["order_id"].as_str().unwrap().to_owned()
    }

    /// The spans of a trace by their ids, once all parts are there and none waits
    /// for the one above it, which ends later.
    async fn whole(&self, trace: &str, root: &str) -> BTreeMap<String, Span> {
        eventually("a whole trace", TRACE_LIMIT, async || {
            let spans = self.collector.of(trace);
            let parts: BTreeSet<String> = spans.iter().map(part).collect();
            let by_id = spans.into_iter().map(|span| (hex(&span.span_id), span));
            let by_id: BTreeMap<String, Span> = by_id.collect();
            let is_known = |span: &Span| {
                let parent = hex(&span.parent_span_id);
                parent == root || by_id.contains_key(&parent)
            };
            let is_whole =
                PARTS.iter().all(|part| parts.contains(*part)) && by_id.values().all(is_known);
            is_whole.then_some(by_id)
        })
        .await
    }
}

/// The request is the only span below `root`, and none ends before it began.
fn assert_is_a_tree(spans: &BTreeMap<String, Span>, root: &str) {
    for span in spans.values() {
        assert!(
            span.end_time_unix_nano >= span.start_time_unix_nano,
            "{span:?}"
        );
        let is_first = hex(&span.parent_span_id) == root;
        assert_eq!(is_first, part(span) == "server", "{}", span.name);
    }
    let first = spans.values().filter(|span| part(span) == "server");
    assert_eq!(first.count(), 1);
}

fn assert_has_the_steps_of_a_purchase(spans: &BTreeMap<String, Span>) {
    let names: BTreeSet<&str> = spans.values().map(|span| span.name.as_str()).collect();
    let steps = [
        "POST /api/v1/orders",
        "timetable",
        "account",
        "commit",
        "publish",
        "issue tickets",
    ];
    for step in steps {
        assert!(names.contains(step), "{step} is not among {names:?}");
    }
}

async fn one_purchase_is_one_trace(world: &World) {
    let (trace, caller) = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331");
    let header = format!("00-{trace}-{caller}-01");
    world.buy("F1-A-1", Some(&header)).await;
    let spans = world.whole(trace, caller).await;
    assert_is_a_tree(&spans, caller);
    assert_has_the_steps_of_a_purchase(&spans);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_embedded_purchase_with_a_caller_s_trace_is_one_trace_from_the_request_to_the_tickets() {
    let world = World::start(|settings| settings, "0").await;
    one_purchase_is_one_trace(&world).await;
    // Nothing is sampled here by itself, and what its caller doesn't want isn't.
    let unwanted = "1af7651916cd43dd8448eb211c80319c";
    world
        .buy(
            "F1-A-2",
            Some(&format!("00-{unwanted}-b7ad6b7169203331-00")),
        )
        .await;
    tokio::time::sleep(QUIET).await;
    assert!(world.collector.of(unwanted).is_empty());
    assert_eq!(world.collector.with("POST /api/v1/orders").len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purchase_over_postgres_and_kafka_is_one_trace_from_the_request_to_the_tickets() {
    let database = Database::empty().await;
    let world = World::start(|settings| on_services(settings, &database), "0").await;
    one_purchase_is_one_trace(&world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_embedded_purchase_without_a_caller_s_trace_begins_one_and_the_log_tells_it() {
    let json = |settings: Settings| {
        settings
            .env("ONSALE_LOG__FORMAT", "json")
            .env("ONSALE_LOG", "onsale=debug")
    };
    let world = World::start(json, "1").await;
    world.buy("F1-A-1", None).await;
    let name = "POST /api/v1/orders";
    let trace = eventually("an order's trace", TRACE_LIMIT, async || {
        world.collector.with(name).into_iter().next()
    })
    .await;
    let spans = world.whole(&trace, "").await;
    assert_is_a_tree(&spans, "");
    assert_has_the_steps_of_a_purchase(&spans);
    let log = world.server.log();
    let lines = log.iter().filter(|line| line.contains(&trace));
    let lines: Vec<serde_json::Value> = lines
        .map(|line| serde_json::from_str(line).expect("a line of JSON"))
        .collect();
    assert!(!lines.is_empty(), "no line tells {trace}");
    for line in lines {
        assert!(line["request.id"].is_string(), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_embedded_server_sells_while_its_collector_is_away() {
    let folder = TempDir::new().unwrap();
    let settings = Settings::in_folder(folder.path())
        // Nobody listens on the discard port.
        .env("ONSALE_TELEMETRY__OTLP_URL", "http://127.0.0.1:9")
        .env("ONSALE_TELEMETRY__TRACE_SAMPLE", "1");
    let mut server = ServerProcess::start(&settings);
    let scene = Show::small().open(&server.admin().await).await;
    let buyer = sign_up(
        &server.client(),
        "buyer@example.com",
        "a long enough password",
    )
    .await;
    buyer.charge(10_000_000).await;
    let hold = buyer.hold_seats(&scene.timetable, &["F1-A-1"]).await;
    let hold = hold["hold_id"].as_str().unwrap();
    buyer.order(hold).ok(201).await;
    assert!(server.terminate().success());
}
