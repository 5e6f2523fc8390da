//! Every checksum in the file, and whether its blocks fit together, with a verdict.
//!
//! Damage is what the server would have to repair or refuse. A notice is what a crash leaves behind
//! and the server settles by itself when it starts.

use super::DataFile;
use super::document::{Cell, Document};
use super::journal::{self, Slot, State};
use super::progress::Progress;
use super::structure::{self, Structure};
use super::{checkpoint, file};
use crate::cli::exit::{Status, failure};
use crate::stdx::{to_u64, to_usize};
use crate::vsr::journal::{RecoveredLog, recover_cluster, recover_solo};
use crate::vsr::log::Body;
use storage_format::{ReplySlotHeader, SECTOR_SIZE, Superblock, checksum};
use zerocopy::FromBytes;

/// What was found.
#[derive(Debug, Default)]
struct Findings {
    checked: u64,
    damage: Vec<String>,
    notices: Vec<String>,
    progress: Progress,
}

/// Reads the whole file. The verdict is an error when the file is damaged.
///
/// # Errors
/// When there is no superblock, without which nothing else can be found.
pub fn run(file: &DataFile) -> anyhow::Result<(Document, anyhow::Result<()>)> {
    let mut findings = Findings::default();
    let copies = file.superblock_copies();
    let superblock = match Superblock::choose(&copies) {
        Ok((superblock, _)) => superblock,
        Err(error) => return Err(failure(Status::Negative, file::explain(error))),
    };
    check_superblock(&mut findings, &copies[..], &superblock);
    check_journal(&mut findings, file, &superblock);
    check_replies(&mut findings, file, &superblock);
    check_blocks(&mut findings, file, &superblock)?;
    let damaged = to_u64(findings.damage.len());
    let mut document = Document::default();
    let verdict = if damaged == 0 { "whole" } else { "damaged" };
    document.fields(
        "integrity",
        [
            ("checked", findings.checked.into()),
            ("damaged", damaged.into()),
            ("notices", to_u64(findings.notices.len()).into()),
            ("verdict", verdict.into()),
        ],
    );
    let rows = |lines: Vec<String>| -> Vec<Vec<Cell>> {
        lines.into_iter().map(|line| vec![line.into()]).collect()
    };
    document.table("damage", &["what"], rows(findings.damage));
    document.table("notices", &["what"], rows(findings.notices));
    if damaged == 0 {
        return Ok((document, Ok(())));
    }
    let sentence = format!(
        "{damaged} parts of the file are damaged; do not start a server on it, restore it from a \
         backup"
    );
    Ok((document, Err(failure(Status::Negative, sentence))))
}

fn check_superblock(findings: &mut Findings, copies: &[Superblock], winner: &Superblock) {
    if winner.recovering == 1 {
        findings.notices.push(
            "the file takes the place of one that was lost, and has nothing yet: start the replica, \
             and it recovers from the others"
                .into(),
        );
    }
    if winner.content_missing == 1 {
        findings.notices.push(
            "the checkpoint came from another replica, and blocks of it may not be here yet: start \
             the replica, and it gets them"
                .into(),
        );
    }
    for (index, copy) in copies.iter().enumerate() {
        findings.checked += 1;
        if !copy.valid() {
            findings
                .damage
                .push(format!("superblock copy {index} is damaged"));
        } else if copy.checksum != winner.checksum {
            let sequence = copy.sequence;
            findings.notices.push(format!(
                "superblock copy {index} has sequence {sequence}, which does not count: a crash \
                 came while copies were written"
            ));
        }
    }
}

/// What is at or below the checkpoint is not needed any more, whatever became of it.
fn check_journal(findings: &mut Findings, file: &DataFile, superblock: &Superblock) {
    let op_checkpoint = superblock.checkpoint.op.get();
    let count = u64::from(superblock.geometry.journal_slot_count.get());
    let (mut headers, mut prepares) = (Vec::new(), Vec::new());
    let damaged = findings.damage.len();
    for slot in journal::slots(file, superblock) {
        findings.checked += 1;
        let Slot {
            number,
            state,
            header,
            header_read,
            prepare_read,
        } = slot;
        headers.push(header_read);
        prepares.push(prepare_read);
        let op = header.map(|header| header.op.get());
        match state {
            State::Empty | State::Clean => {}
            State::HeaderOld => findings.notices.push(format!(
                "journal slot {number}: the prepare is newer than its header: a crash came between \
                 the two"
            )),
            State::HeaderDamaged => findings.damage.push(format!(
                "journal slot {number}: the header is damaged; the prepare is whole"
            )),
            State::PrepareDamaged if op.is_some_and(|op| op <= op_checkpoint) => {
                findings.notices.push(format!(
                    "journal slot {number}: overwritten in part by a prepare that nobody was told \
                     of; its old one is in the checkpoint"
                ));
            }
            State::PrepareDamaged => findings.damage.push(format!(
                "journal slot {number}: the prepare of op {} is damaged",
                op.unwrap_or(0)
            )),
            State::Damaged => findings.damage.push(format!(
                "journal slot {number}: header and prepare are damaged"
            )),
        }
        findings.progress.step("journal", number + 1, count);
    }
    // Each slot for itself is fine; all together, what would a server say?
    if findings.damage.len() > damaged {
        return;
    }
    let checkpoint = &superblock.checkpoint;
    let refused = if superblock.is_solo() {
        recover_solo(&headers, &prepares, checkpoint).err()
    } else {
        match recover_cluster(&headers, &prepares, superblock) {
            Ok(recovered) => {
                check_log(findings, &recovered, checkpoint.op.get());
                None
            }
            Err(reason) => Some(reason),
        }
    };
    findings
        .damage
        .extend(refused.map(|reason| reason.to_string()));
}

/// The log of one of several replicas: what it lacks comes from the others.
fn check_log(findings: &mut Findings, recovered: &RecoveredLog, op_checkpoint: u64) {
    let log = &recovered.log;
    for op in log.tail().max(op_checkpoint + 1)..=log.head().op.get() {
        let missing = log.entry(op).filter(|entry| entry.body == Body::Missing);
        match missing.map(|entry| entry.promised) {
            Some(true) => findings.damage.push(format!(
                "journal: the prepare of op {op} is damaged; it comes from the other replicas"
            )),
            Some(false) => findings.notices.push(format!(
                "journal: the prepare of op {op} is not here yet; it comes from the other replicas"
            )),
            None => {}
        }
    }
    if log.tail() > op_checkpoint + 1 {
        findings.notices.push(format!(
            "journal: ops {} to {} are not known here; they come from the other replicas",
            op_checkpoint + 1,
            log.tail() - 1
        ));
    }
    if !recovered.certain {
        let head = log.head().op;
        findings.damage.push(format!(
            "journal: what followed op {head} may be damaged; the other replicas know"
        ));
    }
}

/// A reply slot is written while the server runs; which of them count, the checkpoint's sessions say.
fn check_replies(findings: &mut Findings, file: &DataFile, superblock: &Superblock) {
    let geometry = &superblock.geometry;
    for slot in 0..u64::from(geometry.session_count_max.get()) {
        let offset = geometry.reply_offset(slot);
        let sector = file.read(offset, SECTOR_SIZE);
        if sector.iter().all(|byte| *byte == 0) {
            continue;
        }
        findings.checked += 1;
        let (header, _) =
            ReplySlotHeader::read_from_prefix(&sector).expect("a sector holds the header");
        let whole = header.valid() && header.size.get() <= geometry.message_size_max.get() && {
            let message = file.read(offset + to_u64(SECTOR_SIZE), to_usize(header.size.get()));
            checksum(&message) == header.checksum_message
        };
        if !whole {
            findings.notices.push(format!(
                "reply slot {slot} is damaged or was being written: its client may not get an old \
                 reply again"
            ));
        }
    }
}

fn check_blocks(
    findings: &mut Findings,
    file: &DataFile,
    superblock: &Superblock,
) -> anyhow::Result<()> {
    if !structure::knows(superblock) {
        findings.damage.push(format!(
            "the file has blocks of {} bytes, which this release does not read",
            superblock.geometry.block_size
        ));
        return Ok(());
    }
    let expected = superblock.checkpoint_block_count.get();
    let mut structure = Structure::new(file, superblock);
    checkpoint::walk(file, superblock, |step| {
        let listed = structure.listed;
        structure.step(step);
        if structure.listed > listed {
            let progress = &findings.progress;
            progress.step("blocks", structure.listed, expected);
        }
        Ok(())
    })?;
    structure.end();
    findings.checked += structure.blocks;
    findings.damage.append(&mut structure.damage);
    Ok(())
}
