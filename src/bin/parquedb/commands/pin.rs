//! `parquedb pin` and `parquedb unpin`.

use std::io::IsTerminal;
use std::path::PathBuf;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use parquedb_mount::cache::{Cache, CacheOptions};
use parquedb_mount::config::Dirs;
use parquedb_mount::daemon::{PinOptions, PinProgress, Pinned, PinningError, pin, unpin};
use parquedb_mount::model::{DbPath, ExitCode};
use parquedb_mount::remote::RemoteOptions;
use serde_json::json;

use super::{files, texts};
use crate::args::{PinArgs, PinnedFiles, UnpinArgs};
use crate::common::failure::{Failure, chain};
use crate::common::flags::EverywhereFlags;
use crate::common::output::Style;
use crate::common::size::Size;

pub async fn run(args: &PinArgs, flags: &EverywhereFlags, style: Style) -> Result<ExitCode, Failure> {
    let options = options(&args.files, args.cache_dir.as_ref())?;
    let remote = flags.context(None)?.remote(&RemoteOptions::default())?;
    let bar = bar(style);
    let pinned = pin(remote, &options, |progress| match progress {
        PinProgress::Begins { bytes } => bar.set_length(bytes),
        PinProgress::Came { bytes } => bar.inc(bytes),
    })
    .await;
    bar.finish_and_clear();
    let pinned = pinned.map_err(failure)?;
    let bytes = Size(pinned.bytes);
    style.line(format!(
        "Pinned {}, {bytes}: all of it is in the cache, and stays.",
        files(pinned.paths.len())
    ));
    style.json(&result(&options, &pinned));
    Ok(ExitCode::Done)
}

pub async fn run_unpin(args: &UnpinArgs, flags: &EverywhereFlags, style: Style) -> Result<ExitCode, Failure> {
    let Some(database) = &args.database else {
        let cache = Cache::open(&cache_dir(args.cache_dir.as_ref())?, CacheOptions::default())?;
        let count = cache.unpin_all().map_err(|error| {
            Failure::new(ExitCode::Failure, format!("the pins cannot be removed: {error}"))
        })?;
        style.line(format!("Unpinned {count} contents."));
        style.json(&json!({"contents": count}));
        return Ok(ExitCode::Done);
    };
    let wanted = PinnedFiles { database: database.clone(), paths: args.paths.clone() };
    let options = options(&wanted, args.cache_dir.as_ref())?;
    let remote = flags.context(None)?.remote(&RemoteOptions::default())?;
    let unpinned = unpin(&remote, &options).await.map_err(failure)?;
    style.line(format!("Unpinned {}.", files(unpinned.paths.len())));
    style.json(&result(&options, &unpinned));
    Ok(ExitCode::Done)
}

fn result(options: &PinOptions, pinned: &Pinned) -> serde_json::Value {
    json!({"database": options.database.to_string(), "paths": texts(&pinned.paths), "bytes": pinned.bytes})
}

fn failure(error: PinningError) -> Failure {
    match error {
        PinningError::Remote(error) => error.into(),
        error => Failure::new(error.exit_code(), chain(&error)),
    }
}

fn options(files: &PinnedFiles, cache_dir: Option<&PathBuf>) -> Result<PinOptions, Failure> {
    let database = files.database.parse().map_err(|error| Failure::usage(format!("{error}")))?;
    let path = |text: &String| {
        DbPath::parse(text.trim_end_matches('/'))
            .map_err(|error| Failure::usage(format!("'{text}': {error}")))
    };
    let paths = files.paths.iter().map(path).collect::<Result<_, _>>()?;
    Ok(PinOptions { database, paths, cache_dir: self::cache_dir(cache_dir)? })
}

fn cache_dir(chosen: Option<&PathBuf>) -> Result<PathBuf, Failure> {
    match chosen {
        Some(dir) => Ok(dir.clone()),
        None => Ok(Dirs::of_user()?.cache),
    }
}

fn bar(style: Style) -> ProgressBar {
    if style != Style::Text || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
    if let Ok(style) =
        ProgressStyle::with_template("Fetching {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}")
    {
        bar.set_style(style.progress_chars("=> "));
    }
    bar
}
