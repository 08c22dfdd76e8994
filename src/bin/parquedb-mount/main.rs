//! `parquedb-mount`: a remote database as a folder.

mod args;
#[path = "../common/mod.rs"]
mod common;

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use parquedb_mount::config::Dirs;
use parquedb_mount::daemon::{
    MountError, MountOptions, OverlayOptions, Readiness, SyncSettings, few_arenas, in_background,
    prepare_mountpoint, run,
};
use parquedb_mount::disk::make_private_dirs;
use parquedb_mount::fuse::{MountFlag, Passthrough};
use parquedb_mount::model::{DbRef, ExitCode as Exit, Revision};
use parquedb_mount::remote::{Remote, RemoteOptions};
use parquedb_mount::sync::Filter;
use serde_json::json;

use args::{MountArgs, OverlayPlace};
use common::failure::{Failure, chain};
use common::output::Style;

fn main() -> ExitCode {
    let args = MountArgs::parse();
    let style = Style::of(&args.everywhere);
    match mount(&args, style) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            style.failure("parquedb-mount", &failure);
            failure.code.into()
        }
    }
}

/// Everything that can be known to be wrong is found out before going into the background.
fn mount(args: &MountArgs, style: Style) -> Result<(), Failure> {
    let database: DbRef = args.database.parse().map_err(|error| Failure::usage(format!("{error}")))?;
    let dirs = Dirs::of_user()?;
    let context = args.everywhere.context(None)?;
    let remote = context.remote(&RemoteOptions {
        connect_timeout: Duration::from_secs(5).min(args.read_timeout),
        // Half a read's patience, so that one dead connection leaves time for another.
        idle_timeout: args.read_timeout / 2,
        retries: 2,
    })?;
    if args.foreground {
        common::logging::init("info");
    }
    common::limits::allow_many_files();
    let usage = |error: &dyn std::error::Error| Failure::usage(chain(error));
    let mountpoint = prepare_mountpoint(&args.mountpoint).map_err(|error| usage(&error))?;
    let absolute = |path: PathBuf| std::path::absolute(&path).map_err(|error| usage(&error));
    let state_dir = absolute(args.state_dir.clone().unwrap_or(dirs.state))?;
    let read_only = args.read_only || MountFlag::holds(&args.options, MountFlag::ReadOnly);
    let overlay = (!read_only && args.at.is_none()).then(|| OverlayOptions {
        state_dir: state_dir.clone(),
        replica: args.replica.clone(),
        throw_away: args.overlay == OverlayPlace::Memory,
    });
    let filter = Filter::new(&args.include, &args.exclude).map_err(|error| usage(&error))?;
    let critical = (!args.critical_first.is_empty()).then(|| filter.narrowed(&args.critical_first));
    let critical = critical.transpose().map_err(|error| usage(&error))?;
    let options = MountOptions {
        overlay,
        database,
        mountpoint,
        cache_dir: absolute(args.cache_dir.clone().unwrap_or(dirs.cache))?,
        cache_limit: args.cache_size.map(|size| size.0),
        cache_min_free: args.cache_min_free.map(|size| size.0),
        at: args.at.map(Revision),
        poll: args.poll.0,
        sync: Some(SyncSettings {
            trigger: args.sync,
            every: args.sync_interval,
            strategy: args.strategy,
            filter,
            critical,
            conflict_limit: args.conflict_limit.0,
            last_round: args.last_sync.0.unwrap_or_default(),
        }),
        read_deadline: args.read_timeout,
        memory: args.memory.unwrap_or_default(),
        passthrough: if args.no_passthrough { Passthrough::Never } else { Passthrough::Try },
        flags: args.options.clone(),
    };
    if args.foreground {
        return serve(remote, &options, &mut Readiness::nobody(), style);
    }
    make_private_dirs(&state_dir)
        .map_err(|error| Failure::usage(format!("{}: {error}", state_dir.display())))?;
    let log = state_dir.join(format!("mount-{}-{}.log", options.database.owner(), options.database.slug()));
    let not_yet = |log: &Path| {
        let mut terminal = std::io::stderr().lock();
        if style == Style::Text && terminal.is_terminal() {
            let _ = writeln!(
                terminal,
                "The mount does not answer yet: {} says what it waits for.",
                log.display()
            );
        }
    };
    let heard = in_background(&log, not_yet, |mut readiness| {
        common::logging::init("info");
        match serve(remote, &options, &mut readiness, Style::Quiet) {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => {
                tracing::error!("{}", failure.message);
                readiness.failed(failure.code, &failure.message);
                failure.code.into()
            }
        }
    });
    match heard.map_err(|error| Failure::new(Exit::Failure, error.to_string()))? {
        (Exit::Done, _) => {
            tell_mounted(&options, style);
            Ok(())
        }
        (code, message) => Err(Failure::new(code, message)),
    }
}

/// Threads for work that waits for the disk. A few of them wait for long: for the mount's end, for contents that are
/// checked, for a flip. Each takes memory that no budget counts.
const BLOCKING_THREADS: usize = 24;

fn serve(
    remote: Remote,
    options: &MountOptions,
    readiness: &mut Readiness,
    style: Style,
) -> Result<(), Failure> {
    few_arenas();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .build()
        .map_err(|error| Failure::new(Exit::Failure, format!("cannot start: {error}")))?;
    if style != Style::Quiet {
        style.line(format!(
            "Mounting {} on {}; Ctrl-C unmounts.",
            options.database,
            options.mountpoint.display()
        ));
    }
    let ended = runtime.block_on(run(remote, options, readiness));
    // Tasks that wait for a dead remote must not keep the process.
    runtime.shutdown_timeout(Duration::from_secs(1));
    ended.map_err(|error| match error {
        MountError::Remote(inner) => inner.into(),
        other => Failure::new(other.exit_code(), chain(&other)),
    })
}

fn tell_mounted(options: &MountOptions, style: Style) {
    let mountpoint = options.mountpoint.display();
    style.line(format!(
        "{} is mounted on {mountpoint}; fusermount3 -u {mountpoint} unmounts it.",
        options.database
    ));
    style.json(&json!({"database": options.database.to_string(), "mountpoint": options.mountpoint}));
}
