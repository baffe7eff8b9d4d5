//! The command line: reads the settings, starts the log, and calls the library.

use std::fmt::Display;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory as _, Parser, Subcommand};
use onsale::config::Config;
use onsale::domain::ids::PerformanceId;
use onsale::domain::queue::draw::Digest;
use onsale::{app, http, persistence, telemetry, trace, verify_draw};

/// Small allocations from many threads are most of what a request allocates;
/// mimalloc serves them without sharing.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How long threads that block (a password being hashed) may delay the exit.
const EXIT_PATIENCE: Duration = Duration::from_secs(5);

/// The ticketing backend for the minute a sale opens.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Cli {
    /// Settings to read instead of ./config.toml.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Before serving, seed a venue, performances on sale and one account a
    /// role, once, and print how to sign in.
    #[arg(long)]
    demo: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the API. This is what happens without a command.
    Serve {
        /// Before serving, seed a venue, performances on sale and one account a
        /// role, once, and print how to sign in.
        #[arg(long)]
        demo: bool,
    },
    /// Bring the schema of the store up to date, and exit.
    Migrate,
    /// Audit the store, beside a live server or after a crash. Exits 0 if it is
    /// clean, 1 with findings, 2 if it could not run.
    Verify,
    /// Make the draws of waiting rooms again, from what the server publishes.
    /// Exits 0 if they are true, 1 if one was tampered with, 2 if there is none
    /// or it can't be read.
    VerifyDraw(VerifyDraw),
    /// Print the OpenAPI document.
    Openapi,
    /// Administrators.
    Admin {
        #[command(subcommand)]
        command: AdminCommand,
    },
}

#[derive(Debug, clap::Args)]
struct VerifyDraw {
    /// Where the server is: http://HOST[:PORT].
    #[arg(long, required_unless_present = "file")]
    url: Option<String>,
    /// Only the draw of this performance; else of all that are listed.
    #[arg(long, value_name = "ID", requires = "url")]
    performance: Option<PerformanceId>,
    /// A draw that was saved from a server, e.g. one that is reached by TLS; -
    /// is the standard input.
    #[arg(long, value_name = "FILE", conflicts_with = "url")]
    file: Option<PathBuf>,
    /// The commitment, as it was noted before the opening.
    #[arg(long, value_name = "HEX")]
    commitment: Option<Digest>,
}

#[derive(Debug, Subcommand)]
enum AdminCommand {
    /// Make an administrator. The password is read from ONSALE_ADMIN_PASSWORD,
    /// else asked for; for an account that exists, only the role is added.
    Create {
        /// The e-mail address to sign in with.
        #[arg(long)]
        email: String,
    },
}

/// The exit of `verify` and `verify-draw` that says that it could not run.
const VERIFY_COULD_NOT_RUN: u8 = 2;

fn main() -> ExitCode {
    let Cli {
        config,
        demo,
        command,
    } = Cli::parse();
    let command = match command {
        None => Command::Serve { demo },
        Some(Command::Serve { demo: here }) => Command::Serve { demo: demo || here },
        Some(_) if demo => Cli::command()
            .error(
                clap::error::ErrorKind::ArgumentConflict,
                "--demo only goes with serve",
            )
            .exit(),
        Some(other) => other,
    };
    let failure = match command {
        Command::Verify | Command::VerifyDraw(_) => VERIFY_COULD_NOT_RUN,
        Command::Serve { .. } | Command::Migrate | Command::Openapi | Command::Admin { .. } => 1,
    };
    match run(command, config.as_deref()) {
        Ok(code) => code,
        Err(line) => {
            // Nobody is left to tell if stderr is closed.
            let _ = writeln!(std::io::stderr(), "onsale: {line}");
            ExitCode::from(failure)
        }
    }
}

/// Runs `command`; the error is one line for a person.
fn run(command: Command, file: Option<&std::path::Path>) -> Result<ExitCode, String> {
    if let Command::Openapi = command {
        // The document is the same under all settings.
        return writeln!(std::io::stdout(), "{}", http::router::openapi_json())
            .map(|()| ExitCode::SUCCESS)
            .map_err(line);
    }
    if let Command::VerifyDraw(args) = command {
        return check_draws(&args);
    }
    let (config, warnings) = Config::load(file).map_err(line)?;
    telemetry::init(&config.log, config.telemetry.metrics);
    trace::start(&config.telemetry)?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(line)?;
    let result = match command {
        Command::Serve { demo } => runtime.block_on(app::serve(config, demo)).map_err(line),
        Command::Migrate => runtime.block_on(app::migrate(config)).map_err(line),
        Command::Verify => {
            let code = runtime.block_on(persistence::verify::run(&config));
            return Ok(ExitCode::from(
                u8::try_from(code).unwrap_or(VERIFY_COULD_NOT_RUN),
            ));
        }
        Command::Admin {
            command: AdminCommand::Create { email },
        } => {
            let password = admin_password(&config)?;
            runtime
                .block_on(app::create_admin(config, &email, &password))
                .map_err(line)
        }
        Command::Openapi | Command::VerifyDraw(_) => Ok(()),
    };
    runtime.shutdown_timeout(EXIT_PATIENCE);
    trace::finish();
    result.map(|()| ExitCode::SUCCESS)
}

/// Runs anywhere: it needs no settings of a server.
fn check_draws(args: &VerifyDraw) -> Result<ExitCode, String> {
    let source = match (&args.url, &args.file) {
        (Some(url), _) => verify_draw::Source::Server(url, args.performance),
        (None, Some(file)) => verify_draw::Source::File(file),
        (None, None) => return Err("--url or --file is needed".to_owned()),
    };
    let question = verify_draw::Question {
        source,
        commitment: args.commitment,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(line)?;
    let report = runtime.block_on(verify_draw::run(&question))?;
    // The exit status is the answer, even where nobody reads the report.
    let _ = write!(std::io::stdout(), "{report}");
    Ok(ExitCode::from(report.exit()))
}

/// From `ONSALE_ADMIN_PASSWORD`, else typed twice.
fn admin_password(config: &Config) -> Result<String, String> {
    if let Some(password) = &config.admin.password {
        return Ok(password.expose().to_owned());
    }
    let ask = |prompt| {
        rpassword::prompt_password(prompt).map_err(|error| {
            format!("no password: set ONSALE_ADMIN_PASSWORD, or use a terminal ({error})")
        })
    };
    let password = ask("Password: ")?;
    if password == ask("Again: ")? {
        Ok(password)
    } else {
        Err("the two passwords differ".to_owned())
    }
}

/// An error as one line.
#[allow(clippy::needless_pass_by_value)] // It is used as `map_err(line)`.
fn line(error: impl Display) -> String {
    error
        .to_string()
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serving_is_the_default_and_demo_works_with_and_without_the_command() {
        Cli::command().debug_assert();
        for (arguments, expected) in [
            (vec!["onsale"], (false, None)),
            (vec!["onsale", "--demo"], (true, None)),
            (vec!["onsale", "serve", "--demo"], (false, Some(true))),
            (
                vec!["onsale", "serve", "--config", "x.toml"],
                (false, Some(false)),
            ),
        ] {
            let cli = Cli::try_parse_from(&arguments).unwrap();
            let serve = cli
                .command
                .map(|command| matches!(command, Command::Serve { demo: true }));
            assert_eq!((cli.demo, serve), expected, "{arguments:?}");
        }
        assert!(Cli::try_parse_from(["onsale", "admin", "create"]).is_err());
    }
}
