//! The processes of the replicas, and their accesses to the disks.

use super::clocks::Clocks;
use super::network::Place;
use super::phases::Phase;
use super::world::{Action, World, kind};
use super::{astray, clocks, faults, misread, releases};
use crate::random::Random;
use crate::seed::injection::Family;
use crate::sim::crash_plan::CrashPlan;
use crate::sim::describe;
use crate::sim::disk::{Sector, Survived, Zone};
use crate::sim::draws::Draws;
use crate::sim::options::MS;
use crate::sim::verdict::fail;
use crate::sim::world::now;
use crate::timeline::Mark;
use daftari::constants::release_text;
use daftari::vsr::FatalReason;
use madsim::runtime::Handle;
use madsim::task::NodeId;
use std::rc::Rc;

/// What a process does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum State {
    /// There is none.
    Down,
    /// It runs.
    Up,
    /// It is there, and is not run.
    Paused,
}

/// The process of a replica.
#[derive(Debug)]
pub struct Process {
    /// The node that it runs on.
    pub node: Option<NodeId>,
    /// What it does.
    pub state: State,
    /// Times that it was started.
    pub incarnation: u64,
    /// Whether it wrote a prepare or sent a frame since.
    pub served: bool,
    /// Whether it sent a frame since, which only a timeline asks for.
    pub spoke: bool,
    /// Whether its disk was lost, and has no data file yet.
    pub lost: bool,
    /// When its next crash comes.
    pub plan: CrashPlan,
    /// Its clocks.
    pub clocks: Clocks,
    /// The newest release that its binary has.
    pub newest: u32,
    /// Until when accesses to a zone of its disk, or all, are slow.
    slow: (u64, Option<Zone>),
}

impl Process {
    /// A process that never ran.
    #[must_use]
    pub fn new(clocks: Clocks, newest: u32) -> Self {
        Self {
            node: None,
            state: State::Down,
            incarnation: 0,
            served: false,
            spoke: false,
            lost: false,
            plan: CrashPlan::Never,
            clocks,
            newest,
            slow: (0, None),
        }
    }

    /// Its disk works as it should.
    pub fn slow_ends(&mut self) {
        self.slow = (0, None);
    }

    /// Whether it is there.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.state != State::Down
    }
}

/// A replica, as what is told of it names it.
fn place(replica: u8) -> Option<Place> {
    Some(Place::Replica(replica))
}

impl World {
    fn process(&mut self, replica: u8) -> &mut Process {
        &mut self.processes[usize::from(replica)]
    }

    fn node(&self, replica: u8) -> NodeId {
        let node = self.processes[usize::from(replica)].node;
        node.expect("the node was made before")
    }

    /// A replica starts.
    pub fn start(&mut self, replica: u8) {
        if self.process(replica).is_running() {
            return;
        }
        releases::swap(self, replica);
        let newest = self.process(replica).newest;
        self.checker.on_start(replica, newest);
        self.note(kind::START, replica, &newest.to_le_bytes());
        self.tell(place(replica), Mark::Start, || {
            format!("{replica} starts, release {}", release_text(newest))
        });
        let process = self.process(replica);
        process.state = State::Up;
        process.incarnation += 1;
        process.served = false;
        process.spoke = false;
        if process.lost {
            // A file that was not made to its end is removed.
            let disk = &mut self.disks[usize::from(replica)];
            *disk = disk.successor();
        }
        clocks::on_resume(self, replica);
        faults::plan_crash(self, replica, true);
        self.observe(replica);
        Handle::current().restart(self.node(replica));
    }

    /// Power fails.
    pub fn crash(&mut self, replica: u8) {
        let process = self.process(replica);
        process.plan = CrashPlan::Never;
        if !process.is_running() {
            return;
        }
        process.state = State::Down;
        let served = process.served;
        self.note(kind::CRASH, replica, &[]);
        self.checker.counts.crashes += 1;
        self.checker.counts.crashes_in_recovery += u64::from(!served);
        Handle::current().kill(self.node(replica));
        self.network.crash(replica);
        let own = &mut Random::new(self.random.fault.any());
        let disk = &mut self.disks[usize::from(replica)];
        let under_way = disk.writes().count();
        let what = || format!("{under_way} writes of {replica} are torn or lost");
        if under_way > 0
            && disk.at_crash.is_none()
            && !self.stage.inject(Family::Tear, place(replica), what)
        {
            disk.at_crash = Some(Survived::Whole);
        }
        let writes = disk.crash(own);
        self.tell(place(replica), Mark::Stop, || {
            let list = writes
                .iter()
                .map(|(write, survived)| format!("{} {survived:?}", describe::write(write)));
            format!("{replica} crashes: {}", list.collect::<Vec<_>>().join(", "))
        });
        if !self.disks[usize::from(replica)].formatting {
            let verdict = self.checker.on_crash(&self.disks, replica, &writes);
            self.judge(verdict);
        }
        faults::after_crash(self, replica, &writes, own);
        self.observe(replica);
    }

    /// The disk of a replica that is down is lost.
    pub fn lose_disk(&mut self, replica: u8) {
        self.note(kind::CRASH, replica, b"lost");
        self.checker.on_lost(replica);
        let disk = &mut self.disks[usize::from(replica)];
        *disk = disk.successor();
        self.process(replica).lost = true;
    }

    /// The disk of a replica that is down, which was taken for lost, is there again.
    pub fn find_disk(&mut self, replica: u8, sectors: &[Option<Rc<Sector>>]) {
        self.trace(|| format!("the disk of {replica} is found"));
        let disk = &mut self.disks[usize::from(replica)];
        disk.formatting = false;
        disk.restore(0, sectors);
        self.checker.on_found(disk, replica);
        self.process(replica).lost = false;
    }

    /// There is a data file again in the place of the one that was lost.
    pub fn on_replaced(&mut self, replica: u8) {
        self.tell(place(replica), Mark::Start, || {
            format!("{replica} has an empty data file")
        });
        let disk = &mut self.disks[usize::from(replica)];
        disk.formatting = false;
        self.checker.on_formatted(disk, replica);
        self.process(replica).lost = false;
    }

    /// A replica stands still.
    pub fn pause(&mut self, replica: u8, length: u64) {
        self.note(kind::WEATHER, replica, b"pause");
        self.tell(place(replica), Mark::Stop, || {
            format!("{replica} stands still")
        });
        self.checker.counts.pauses += 1;
        let process = self.process(replica);
        process.state = State::Paused;
        let incarnation = process.incarnation;
        Handle::current().pause(self.node(replica));
        self.observe(replica);
        self.at(now() + length, Action::Resume(replica, incarnation));
    }

    /// A replica goes on, if it is the process that was paused.
    pub fn resume(&mut self, replica: u8, incarnation: u64) {
        let process = self.process(replica);
        if process.state != State::Paused || process.incarnation != incarnation {
            return;
        }
        process.state = State::Up;
        clocks::on_resume(self, replica);
        self.note(kind::WEATHER, replica, b"resume");
        self.tell(place(replica), Mark::Start, || format!("{replica} goes on"));
        self.observe(replica);
        Handle::current().resume(self.node(replica));
    }

    /// The replica's process ended by itself: nothing that happens here is a reason to.
    pub fn on_exit(&mut self, replica: u8, result: Result<(), FatalReason>) {
        self.note(kind::EXIT, replica, format!("{result:?}").as_bytes());
        self.tell(place(replica), Mark::Stop, || {
            format!("{replica} exits: {result:?}")
        });
        self.process(replica).state = State::Down;
        self.observe(replica);
        if matches!(result, Err(FatalReason::ReplicaRuns { .. })) {
            // Frames of its earlier life are late; its operator tries again.
            self.network.crash(replica);
            self.at(now() + 1_000 * MS, Action::Start(replica));
            return;
        }
        if let (Some(directed), Err(reason)) = (&mut self.directed, &result)
            && directed.may_exit.contains(&replica)
        {
            directed.exits.push((replica, reason.clone()));
            self.network.crash(replica);
            return;
        }
        self.judge(match result {
            Ok(()) => fail("liveness", format!("replica {replica} left")),
            Err(reason) => fail("fatal", format!("replica {replica}: {reason:?}: {reason}")),
        });
    }

    // The disks.

    /// A replica writes.
    pub fn start_write(&mut self, replica: u8, offset: u64, data: &[u8]) -> u64 {
        self.note(kind::WRITE_START, replica, data);
        let disk = &self.disks[usize::from(replica)];
        let zone = disk.zone(offset);
        self.trace(|| format!("{replica} writes {}", describe::bytes(zone, offset, data)));
        if !disk.formatting {
            let verdict = self
                .checker
                .on_write_start(&self.disks, replica, (offset, data));
            self.judge(verdict);
            if zone == Zone::Prepares {
                self.process(replica).served = true;
            }
        }
        let id = match self.disks[usize::from(replica)].start_write(offset, data) {
            Ok(id) => id,
            Err(what) => {
                self.judge(fail("I13", format!("replica {replica}: {what}")));
                return u64::MAX;
            }
        };
        let speed = self.options.speeds[usize::from(replica)].write;
        let at = now() + self.disk_delay(replica, zone, speed);
        self.at(at, Action::Write(replica, id));
        if self.process(replica).plan.on_write(zone) && faults::strikes(self, replica) {
            self.at(now(), Action::Crash(replica));
        }
        id
    }

    /// A replica reads.
    pub fn start_read(&mut self, replica: u8, offset: u64) -> u64 {
        let disk = &mut self.disks[usize::from(replica)];
        let (id, zone) = (disk.start_read(), disk.zone(offset));
        let speed = self.options.speeds[usize::from(replica)].read;
        let at = now() + self.disk_delay(replica, zone, speed);
        self.at(at, Action::Read(replica, id));
        id
    }

    /// A replica takes what it read.
    pub fn finish_read(&mut self, replica: u8, offset: u64, buffer: &mut [u8]) {
        self.disks[usize::from(replica)].get(offset, buffer);
        misread::strike(self, replica, offset, buffer);
        self.note(kind::READ, replica, buffer);
    }

    fn disk_delay(&mut self, replica: u8, zone: Zone, (min, mean): (u64, u64)) -> u64 {
        let speed = self.options.speeds[usize::from(replica)];
        let faults = self.phases.phase == Phase::Faults;
        let random = &mut Random::new(self.random.disk.any());
        if faults && random.chance(speed.stalls) {
            let longer = random.exponential(200 * MS);
            let what = || format!("{zone:?} of {replica} takes {} ms", longer / MS);
            if self.stage.inject(Family::DiskStall, place(replica), what) {
                return min + longer;
            }
        }
        let mut delay = min + random.exponential(mean);
        if let Some(directed) = &self.directed {
            delay *= directed.slowness(replica);
        }
        if zone == Zone::Grid {
            delay *= speed.grid_factor;
        }
        let slow = &mut self.processes[usize::from(replica)].slow;
        if faults && random.below(10_000) < speed.spells {
            let slow_zone = random.pick(&[None, Some(Zone::Grid), Some(Zone::Prepares)]);
            let length = random.exponential(2_000 * MS);
            let what = || {
                let zone = slow_zone.map_or("all".into(), |zone| format!("{zone:?}"));
                format!("{zone} of {replica} is slow for {} ms", length / MS)
            };
            if self.stage.inject(Family::DiskSpell, place(replica), what) {
                *slow = (now() + length, slow_zone);
            }
        }
        let (until, slow_zone) = *slow;
        if faults && now() < until && slow_zone.is_none_or(|slow| slow == zone) {
            delay *= speed.spell_factor;
        }
        delay
    }

    /// A write reaches the platter, unless the power failed before.
    pub fn on_write_done(&mut self, replica: u8, id: u64) {
        let disk = &mut self.disks[usize::from(replica)];
        if let Some(directed) = &mut self.directed
            && let Some(zone) = disk.zone_of_write(id)
            && directed.stalls(replica, zone, id)
        {
            return;
        }
        let kept = self.directed.is_some() || self.options.astray.any();
        let before = if kept {
            disk.written_over(id)
        } else {
            Vec::new()
        };
        let Some(write) = disk.complete_write(id) else {
            return;
        };
        self.note(kind::WRITE_DONE, replica, &write.offset.to_le_bytes());
        self.trace(|| format!("{replica} has written {}", describe::write(&write)));
        if !self.disks[usize::from(replica)].formatting {
            let recovered = self.checker.counts.recovered;
            let superblock = &self.checker.platter(replica).superblock;
            let (checkpoint, view) = (superblock.checkpoint.op.get(), superblock.view.get());
            let verdict = self.checker.on_write_done(&self.disks, replica, &write);
            self.judge(verdict);
            if self.checker.counts.recovered > recovered {
                faults::on_recovered(self, replica);
            }
            self.tell_superblock(replica, (checkpoint, view));
            self.observe(replica);
        }
        if let Some(directed) = &mut self.directed
            && let Some(elsewhere) = directed.takes_astray(replica, write.zone)
        {
            // The checker goes on from what should be there, as with damage.
            let disk = &mut self.disks[usize::from(replica)];
            disk.put(write.offset, &before);
            if let Some(offset) = elsewhere {
                disk.put(offset, &write.data);
            }
            self.trace(|| format!("{replica}: it went astray, to {elsewhere:?}"));
        }
        astray::strike(self, replica, &write, &before);
        self.finish_access(replica, id);
    }

    /// A read is done.
    pub fn on_read_done(&mut self, replica: u8, id: u64) {
        if self.process(replica).is_running() {
            self.finish_access(replica, id);
        }
    }

    fn finish_access(&mut self, replica: u8, id: u64) {
        if self.process(replica).plan.on_access() && faults::strikes(self, replica) {
            self.crash(replica);
        } else {
            self.disks[usize::from(replica)].finish(id);
        }
    }
}
