//! `parquedb pin` and `parquedb unpin`.

use std::path::PathBuf;

use parquedb_mount::cache::{Cache, CacheOptions};
use parquedb_mount::daemon::{PinOptions, PinProgress, Pinned, PinningError, pin, unpin};
use parquedb_mount::model::{DbPath, ExitCode};
use parquedb_mount::remote::RemoteOptions;
use serde_json::json;

use super::{cache_dir, files, texts};
use crate::args::{PinArgs, PinnedFiles, UnpinArgs};
use crate::common::failure::{Failure, chain};
use crate::common::flags::EverywhereFlags;
use crate::common::output::Style;
use crate::common::size::Size;
use crate::progress::bar;

pub async fn run(args: &PinArgs, flags: &EverywhereFlags, style: Style) -> Result<ExitCode, Failure> {
    let options = options(&args.files, args.cache_dir.as_ref())?;
    let remote = flags.context(None)?.remote(&RemoteOptions::default())?;
    let bar = bar(style, "Fetching", 0);
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
        let count = cache.unpin_all().map_err(|error| failure(PinningError::Unpin(error)))?;
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
    Ok(PinOptions { database, paths, cache_dir: super::cache_dir(cache_dir)? })
}
