//! `parquedb`: push, pull, serve and the other commands of the command line.

mod args;
mod commands;
#[path = "../common/mod.rs"]
mod common;
mod progress;

use std::process::ExitCode;

use clap::Parser;

use args::{Cli, Command};
use common::output::Style;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let style = Style::of(&cli.everywhere);
    let quiet_log = if matches!(cli.command, Command::Serve(_)) { "info" } else { "warn" };
    common::logging::init(if style == Style::Quiet { "error" } else { quiet_log });
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let code = parquedb_mount::model::ExitCode::Failure;
            style.failure("parquedb", &common::failure::Failure::new(code, format!("cannot start: {error}")));
            return code.into();
        }
    };
    let outcome = runtime.block_on(async {
        match &cli.command {
            Command::Serve(args) => commands::serve::run(args, &cli.everywhere, style).await,
            Command::Push(args) => commands::push::run(args, &cli.everywhere, style).await,
            Command::Pull(args) => commands::pull::run(args, &cli.everywhere, style).await,
            Command::Sync(args) => commands::sync::run(args, &cli.everywhere, style).await,
            Command::Conflicts(args) => commands::conflicts::run(args, style),
            Command::Resolve(args) => commands::resolve::run(args, style),
            Command::Log(args) => commands::log::run(args, &cli.everywhere, style).await,
            Command::Diff(args) => commands::diff::run(args, &cli.everywhere, style).await,
            Command::Revert(args) => commands::revert::run(args, &cli.everywhere, style).await,
            Command::List(args) => commands::list::run(args, &cli.everywhere, style).await,
            Command::Login(args) => commands::login::run(args, &cli.everywhere, style).await,
            Command::Whoami => commands::whoami::run(&cli.everywhere, style).await,
            Command::Status(args) => commands::status::run(args, &cli.everywhere, style),
            Command::Service(args) => commands::service::run(args, style),
            Command::Ctl(args) => commands::ctl::run(args, style),
            Command::Pin(args) => commands::pin::run(args, &cli.everywhere, style).await,
            Command::Unpin(args) => commands::pin::run_unpin(args, &cli.everywhere, style).await,
            Command::Cache(args) => commands::cache::run(args, style),
            Command::Fsck(args) => commands::fsck::run(args, style).await,
            Command::Gc(args) => commands::gc::run(args, style).await,
            Command::Backup(args) => commands::backup::run(args, style).await,
            Command::Restore(args) => commands::backup::run_restore(args, style).await,
            Command::Export(args) => commands::plain::run_export(args, style).await,
            Command::Import(args) => commands::plain::run_import(args, style).await,
        }
    });
    match outcome {
        Ok(code) => code.into(),
        Err(failure) => {
            style.failure("parquedb", &failure);
            failure.code.into()
        }
    }
}
