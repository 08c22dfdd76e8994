//! Progress bars on a terminal, and the seed's lines as the work goes on.

use std::io::IsTerminal;
use std::sync::Mutex;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use parquedb_mount::sync::{Event, Reporter};

use crate::common::output::Style;

/// A bar for `bytes` of work, hidden where there is nobody to see it.
pub fn bar(style: Style, what: &'static str, bytes: u64) -> ProgressBar {
    if style != Style::Text || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let template = "{msg} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
    let bar = ProgressBar::with_draw_target(Some(bytes), ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_message(what);
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// Prints a push's or pull's steps.
pub struct Narrator {
    style: Style,
    remote: String,
    directory: String,
    dry_run: bool,
    bar: Mutex<Option<ProgressBar>>,
}

impl Narrator {
    /// For a run against `remote` with `directory`.
    pub fn new(style: Style, remote: &str, directory: &str, dry_run: bool) -> Self {
        Self {
            style,
            remote: remote.to_owned(),
            directory: directory.to_owned(),
            dry_run,
            bar: Mutex::new(None),
        }
    }

    fn start_bar(&self, what: &'static str, bytes: u64) {
        *self.bar.lock().unwrap_or_else(|e| e.into_inner()) = Some(bar(self.style, what, bytes));
    }
}

impl Reporter for Narrator {
    fn report(&self, event: Event<'_>) {
        let say = |line: String| self.style.line(line);
        match event {
            Event::Authenticated { username } => say(format!("Logged in as {username}\n")),
            Event::Target { visibility, reference } => {
                say(format!("Pushing to {}...", self.remote));
                say(format!("  Visibility: {visibility}"));
                say(format!("  Slug: {reference}\n"));
            }
            Event::Registered { id } => {
                say(format!("Database registered: {id}\n"));
                say("Uploading files...".into());
            }
            Event::Found { name, visibility, collections } => {
                say(format!("\nFound database: {name}"));
                say(format!("  Visibility: {visibility}"));
                say(format!("  Collections: {collections}\n"));
                if !self.dry_run {
                    say(format!("Downloading to {}...\n", self.directory));
                }
            }
            Event::Hashing { bytes } => self.start_bar("Hashing     ", bytes),
            Event::Transferring { bytes, .. } => self.start_bar("Transferring", bytes),
            Event::Progress { bytes } => {
                if let Some(bar) = &*self.bar.lock().unwrap_or_else(|e| e.into_inner()) {
                    bar.inc(bytes);
                }
            }
            Event::Finished => {
                if let Some(bar) = self.bar.lock().unwrap_or_else(|e| e.into_inner()).take() {
                    bar.finish_and_clear();
                }
            }
        }
    }
}
