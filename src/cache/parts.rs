//! The two directories a content may have, looked at as one.

use std::io;
use std::sync::Arc;

use super::blocks::BlockRange;
use super::part::Part;
use super::slots::View;

/// Whichever of the two directories exist. A block counts if either has it.
#[derive(Debug, Default)]
pub(super) struct Parts {
    /// Only what was verified; nothing is added but by verifying.
    pub(super) shared: Option<Arc<Part>>,
    /// What came from this scope.
    pub(super) private: Option<Arc<Part>>,
}

/// What the parts' slots said of some blocks.
#[derive(Debug, Default)]
pub(super) struct Views {
    shared: Option<View>,
    private: Option<View>,
}

impl Parts {
    pub(super) fn views(&self, blocks: BlockRange) -> io::Result<Views> {
        let view = |part: &Option<Arc<Part>>| part.as_ref().map(|part| part.slots.view(blocks)).transpose();
        let shared = view(&self.shared)?;
        // Most often one of them has all.
        let whole =
            shared.as_ref().is_some_and(|view| (blocks.start..blocks.end).all(|block| view.has(block)));
        let private = if whole { None } else { view(&self.private)? };
        Ok(Views { shared, private })
    }
}

impl Views {
    pub(super) fn has(&self, block: u64) -> bool {
        self.in_shared(block) || self.private.as_ref().is_some_and(|view| view.has(block))
    }

    fn in_shared(&self, block: u64) -> bool {
        self.shared.as_ref().is_some_and(|view| view.has(block))
    }

    /// `blocks`, all of which are here, in runs that lie in one part.
    pub(super) fn runs<'a>(
        &'a self,
        parts: &'a Parts,
        blocks: BlockRange,
    ) -> Vec<(&'a Part, &'a View, BlockRange)> {
        let mut runs = Vec::with_capacity(1);
        let mut start = blocks.start;
        while start < blocks.end {
            let shared = self.in_shared(start);
            let end =
                (start..blocks.end).find(|block| self.in_shared(*block) != shared).unwrap_or(blocks.end);
            let source = if shared { (&parts.shared, &self.shared) } else { (&parts.private, &self.private) };
            if let (Some(part), Some(view)) = source {
                runs.push((&**part, view, BlockRange { start, end }));
            }
            start = end;
        }
        runs
    }
}

/// The runs of `blocks` that are in neither part.
pub(super) fn absent_runs(views: &Views, blocks: BlockRange) -> Vec<BlockRange> {
    let mut runs = Vec::new();
    let mut start = blocks.start;
    while start < blocks.end {
        let here = views.has(start);
        let end = (start..blocks.end).find(|block| views.has(*block) != here).unwrap_or(blocks.end);
        if !here {
            runs.push(BlockRange { start, end });
        }
        start = end;
    }
    runs
}
