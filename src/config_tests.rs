use super::*;

fn load(file: &str, env: &[(&str, &str)]) -> Result<(Config, Vec<String>), ConfigError> {
    let env = env
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Config::assemble(Some(("my.toml", file)), env)
}

fn line(file: &str, env: &[(&str, &str)]) -> String {
    let line = load(file, env).expect_err("must be refused").to_string();
    assert_eq!(line.lines().count(), 1, "{line}");
    line
}

#[test]
fn the_compiled_in_defaults_have_exactly_the_known_keys() {
    let mut keys: Vec<String> = keys_of("", DEFAULTS)
        .unwrap()
        .into_iter()
        .map(|setting| setting.key)
        .collect();
    let mut known: Vec<&str> = RULES.iter().map(|(key, _)| *key).collect();
    keys.sort();
    known.sort_unstable();
    assert_eq!(keys, known);
    let config = Config::default();
    assert_eq!(config.http.listen, "127.0.0.1:8080");
    assert_eq!(config.store.url, "sqlite://data/onsale.db");
    assert_eq!(config.holds_tier(), Tier::Memory);
    assert_eq!(config.actors.permits_max, 4096);
}

#[test]
fn the_environment_wins_over_the_file_and_the_file_over_the_defaults() {
    let file =
        "[http]\nlisten = \"127.0.0.1:1\"\nrequest_timeout_seconds = 3\n[store]\nmigrate = false";
    let env = [
        ("ONSALE_HTTP__LISTEN", "127.0.0.1:2"),
        (
            "ONSALE_HTTP__CORS_ORIGINS",
            "https://a.example, http://b.example:81",
        ),
        ("ONSALE_AUTH__SECRET", "00123456789012345678901234567890123"),
        ("ONSALE_LOG", "warn"),
    ];
    let (config, warnings) = load(file, &env).unwrap();
    assert_eq!(config.http.listen, "127.0.0.1:2");
    assert_eq!(config.http.request_timeout_seconds, 3);
    assert_eq!(config.http.body_timeout_seconds, 10);
    assert!(!config.store.migrate);
    assert_eq!(
        config.http.cors_origins,
        ["https://a.example", "http://b.example:81"]
    );
    // A secret of digits stays a text.
    assert_eq!(
        config.auth.secret.expose(),
        "00123456789012345678901234567890123"
    );
    assert_eq!(config.log.filter, "warn");
    assert_eq!(warnings, Vec::<String>::new());
}

#[test]
fn an_unknown_key_in_a_file_stops_the_start_and_says_what_is_known() {
    assert_eq!(
        line("[ops]\nlisten_on = 1", &[]),
        "my.toml: unknown key ops.listen_on; allowed here: listen"
    );
    let line = line("verbose = true", &[]);
    assert!(
        line.starts_with("my.toml: unknown key verbose; allowed here: http, ops, node,"),
        "{line}"
    );
}

#[test]
fn an_unknown_variable_only_warns() {
    let (_, warnings) = load("", &[("ONSALE_HTPP__LISTEN", "x"), ("ONSALE_FOO", "x")]).unwrap();
    assert_eq!(warnings.len(), 2);
    assert!(warnings[0].contains("ONSALE_HTPP__LISTEN"), "{warnings:?}");
}

#[test]
fn a_bad_value_stops_the_start_with_its_key_its_value_and_what_is_allowed() {
    assert_eq!(
        line("", &[("ONSALE_ACTORS__PERMITS_MAX", "0")]),
        "actors.permits_max = \"0\": allowed is a whole number from 1 to 1000000 (set by ONSALE_ACTORS__PERMITS_MAX)"
    );
    assert_eq!(
        line("[durability]\nholds = \"maybe\"", &[]),
        "durability.holds = \"maybe\": allowed is auto, memory, checkpoint, database (set by my.toml)"
    );
    for (key, value) in [
        ("ONSALE_HTTP__LISTEN", "8080"),
        ("ONSALE_HTTP__LISTEN", "127.0.0.1:99999"),
        ("ONSALE_HTTP__CORS_ORIGINS", "tickets.example"),
        ("ONSALE_STORE__URL", "mysql://x"),
        ("ONSALE_STORE__LANES", "2"),
        ("ONSALE_STORE__MIGRATE", "perhaps"),
        ("ONSALE_STORE__READERS", "-1"),
        ("ONSALE_STORE__READERS", "99999999999999999999"),
        ("ONSALE_LOG", "onsale=loud"),
        ("ONSALE_LOG__FORMAT", "xml"),
    ] {
        let line = line("", &[(key, value)]);
        assert!(
            line.contains(value) && line.contains("allowed is"),
            "{line}"
        );
    }
}

#[test]
fn a_table_or_a_fraction_where_a_number_belongs_is_refused() {
    assert!(line("[http]\nrequest_timeout_seconds = 1.5", &[]).contains("a whole number"));
    assert!(line("[http.listen]\nport = 1", &[]).contains("http.listen"));
    assert!(line("http = 3", &[]).contains("unknown key http"));
    assert!(line("[http", &[]).starts_with("my.toml: "));
}

#[test]
fn sections_may_have_sections_of_their_own() {
    let file = "[queue.proof_of_work]\nenabled = true\nbits_min = 3\n[queue]\nplaces_max = 7";
    let url = "https://check.example/siteverify";
    let env = [
        ("ONSALE_QUEUE__HUMAN_CHECK__URL", url),
        ("ONSALE_QUEUE__HUMAN_CHECK__ON_OUTAGE", "refuse"),
    ];
    let (config, warnings) = load(file, &env).unwrap();
    assert_eq!(warnings, Vec::<String>::new());
    let queue = config.queue;
    assert!(queue.proof_of_work.enabled && queue.proof_of_work.bits_min == 3);
    assert_eq!((queue.places_max, &*queue.human_check.url), (7, url));
    assert_eq!(queue.human_check.on_outage, OnOutage::Refuse);
    let unknown = line("[queue.human_check]\ntimeout = 1", &[]);
    assert!(
        unknown.starts_with(
            "my.toml: unknown key queue.human_check.timeout; allowed here: places_max,"
        ),
        "{unknown}"
    );
    for (file, said) in [
        ("human_check.url = \"tickets.example\"", "http://HOST/PATH"),
        ("human_check.url = \"ftp://x/y\"", "http://HOST/PATH"),
        ("human_check.on_outage = \"shrug\"", "admit, refuse"),
        ("proof_of_work.bits_max = 33", "from 1 to 32"),
        (
            "proof_of_work.bits_min = 21",
            "at most queue.proof_of_work.bits_max",
        ),
        ("proof_of_work = true", "unknown key queue.proof_of_work"),
    ] {
        let line = line(&format!("[queue]\n{file}"), &[]);
        assert!(line.contains(said), "{line}");
    }
    let secret = line("[queue.human_check]\nsecret = 424242", &[]);
    assert!(!secret.contains("424242"), "{secret}");
}

#[test]
fn a_secret_is_shown_neither_in_an_error_nor_in_a_debug_text() {
    assert!(!line("[auth]\nsecret = 424242", &[]).contains("424242"));
    let (config, warnings) = load(
        "",
        &[
            ("ONSALE_AUTH__SECRET", "hush"),
            ("ONSALE_ADMIN_PASSWORD", "hush"),
        ],
    )
    .unwrap();
    assert!(!format!("{config:?} {warnings:?}").contains("hush"));
    assert_eq!(warnings.len(), 1, "only that one is short: {warnings:?}");
}

#[test]
fn the_first_administrator_comes_from_the_environment() {
    let env = [
        ("ONSALE_ADMIN_EMAIL", "a@b.c"),
        ("ONSALE_ADMIN_PASSWORD", "p"),
    ];
    let (config, warnings) = load("", &env).unwrap();
    assert_eq!(config.admin.email.as_deref(), Some("a@b.c"));
    assert_eq!(
        config.admin.password.as_ref().map(Secret::expose),
        Some("p")
    );
    assert_eq!(warnings, Vec::<String>::new());
}

#[test]
fn a_file_that_was_named_must_exist() {
    let missing = Path::new("no/such/file.toml");
    let error = Config::load_with(Some(missing), std::iter::empty()).unwrap_err();
    assert!(
        error.to_string().starts_with("no/such/file.toml: "),
        "{error}"
    );
}

#[test]
fn postgres_asks_for_a_secret_and_pgbouncer_for_a_way_past_it() {
    const SECRET: &str = "[auth]\nsecret = \"01234567890123456789012345678901\"";
    let url = ("ONSALE_STORE__URL", "postgres://u:p@localhost:5432/onsale");
    assert!(line("", &[url]).starts_with("auth.secret = \"…\": allowed is a text of at least 32"));
    assert!(load(SECRET, &[url]).is_ok());
    let pooled = ("ONSALE_STORE__POOLED", "true");
    assert!(line(SECRET, &[url, pooled]).starts_with("store.direct_url = \"\": allowed is"));
    let direct = ("ONSALE_STORE__DIRECT_URL", url.1);
    let (config, _) = load(SECRET, &[url, pooled, direct]).unwrap();
    assert_eq!(config.store.direct_url(), url.1);
    assert!((1..=4).contains(&config.store.lanes()));
    let lanes = ("ONSALE_STORE__LANES", "7");
    let (config, _) = load(SECRET, &[url, lanes]).unwrap();
    assert_eq!(config.store.lanes(), 7);
    for only_there in [pooled, direct, ("ONSALE_STORE__REPLICA_URL", url.1)] {
        assert!(line("", &[only_there]).ends_with("on SQLite"));
    }
    assert!(line("", &[("ONSALE_STORE__URL", "mysql://localhost/x")]).contains("postgres://"));
}

#[test]
fn holds_are_as_durable_as_suits_the_stores_and_never_in_memory_alone_where_nodes_share_one() {
    let tier = |file: &str| {
        let (config, _) = Config::assemble(Some(("my.toml", file)), std::iter::empty()).unwrap();
        config.holds_tier()
    };
    let redis = "[redis]\nurl = \"redis://127.0.0.1:6379\"\n";
    let secret = "01234567890123456789012345678901";
    let postgres = format!(
        "[auth]\nsecret = \"{secret}\"\n[store]\nurl = \"postgres://localhost:5432/onsale\"\n"
    );
    assert_eq!(tier(""), Tier::Memory);
    assert_eq!(tier(redis), Tier::Memory);
    assert_eq!(
        tier(&format!("{redis}[durability]\nholds = \"checkpoint\"")),
        Tier::Checkpoint
    );
    assert_eq!(tier(&postgres), Tier::Database);
    assert_eq!(tier(&format!("{postgres}{redis}")), Tier::Checkpoint);
    let memory = format!("{postgres}[durability]\nholds = \"memory\"");
    assert!(line(&memory, &[]).starts_with("durability.holds = \"memory\": allowed is auto"));
}

#[test]
fn a_redis_address_is_checked_and_never_shown() {
    for bad in ["http://x:1", "redis://", "redis://:hunter2@localhost"] {
        let line = line("", &[("ONSALE_REDIS__URL", bad)]);
        assert!(line.starts_with("redis.url = …"), "{line}");
    }
    let several = "redis://:pass@10.0.0.1:7000, redis://10.0.0.2:7000";
    let env = [("ONSALE_REDIS__URL".to_owned(), several.to_owned())];
    let (config, _) = Config::assemble(None, env.into_iter()).unwrap();
    assert_eq!(config.redis.urls().len(), 2);
    assert!(!format!("{config:?}").contains("pass@"));
}
