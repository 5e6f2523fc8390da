//! Headers for tests.

use storage_format::{PrepareHeader, PrepareKind};

/// The op that follows `parent`, made in `view`.
pub fn next(parent: &PrepareHeader, view: u32) -> PrepareHeader {
    let mut header = PrepareHeader::empty(parent.cluster.get(), parent.op.get() + 1);
    header.kind = PrepareKind::Pulse.code();
    header.view = view.into();
    header.parent = parent.checksum;
    header.seal();
    header
}

/// Op 0, and one op for each view.
pub fn chain(views: &[u32]) -> Vec<PrepareHeader> {
    let mut headers = vec![PrepareHeader::root(0)];
    for view in views {
        headers.push(next(&headers[headers.len() - 1], *view));
    }
    headers
}
