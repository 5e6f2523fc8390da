//! Servers and clusters of them as processes, directories, ports, random numbers, and a bounded wait for
//! futures.

use crate::links::Links;
use crate::raw::{Raw, view};
use std::fs::{self, OpenOptions};
use std::future::Future;
use std::net::TcpListener;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_daftari");

/// How long anything may take before a test gives up on it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A directory of a test's own, removed with its data files at the end, kept when the test fails.
#[derive(Debug)]
pub(crate) struct Directory(PathBuf);

impl Directory {
    pub(crate) fn new(name: &str) -> Self {
        let path =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
        drop(fs::remove_dir_all(&path));
        fs::create_dir_all(&path).expect("the target directory is writable");
        Self(path)
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if !thread::panicking() {
            drop(fs::remove_dir_all(&self.0));
        }
    }
}

/// A port of 127.0.0.1 that nobody listens on, another one with each call.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = std::process::id().wrapping_mul(97) % 15_000;
    for _ in 0..1000 {
        let offset = u32::from(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = u16::try_from(15_000 + (first + offset) % 15_000).expect("below 30,000");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port between 15,000 and 30,000");
}

/// Runs the binary to its end and gives what it printed.
pub(crate) fn run(arguments: &[&str]) -> Output {
    Command::new(BINARY)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("the binary can be run")
}

/// What a command printed on stderr and stdout.
pub(crate) fn text(output: &Output) -> String {
    let both = [output.stderr.as_slice(), output.stdout.as_slice()].concat();
    String::from_utf8_lossy(&both).into_owned()
}

/// Makes a small data file of cluster 0.
pub(crate) fn format(file: &Path, more: &[&str]) {
    format_replica(file, (0, 1), more);
}

/// Makes the data file of one of so many replicas of cluster 0, or of a standby beyond them.
fn format_replica(file: &Path, (index, count): (usize, usize), more: &[&str]) {
    let kind = if index < count { "replica" } else { "standby" };
    let (owner, count) = (
        format!("--{kind}={index}"),
        format!("--replica-count={count}"),
    );
    let mut arguments = vec!["format", "--cluster=0", &owner, &count];
    arguments.extend_from_slice(more);
    arguments.push(file.to_str().expect("the path is UTF-8"));
    let output = run(&arguments);
    assert!(output.status.success(), "{arguments:?}: {}", text(&output));
}

/// What `daftari inspect` says as JSON; the file may be in use.
pub(crate) fn inspect(file: &Path, topic: &str) -> serde_json::Value {
    let file = file.to_str().expect("the path is UTF-8");
    let output = run(&["inspect", topic, "--live", "--output=json", file]);
    assert!(output.status.success(), "{}", text(&output));
    serde_json::from_slice(&output.stdout).expect("it prints JSON")
}

/// Flips all bits of a byte of a block.
pub(crate) fn flip(file: &Path, address: u64, at: u64) {
    let geometry = &inspect(file, "superblock")["geometry"];
    let number = |name: &str| geometry[name].as_u64().expect("it is a number");
    let offset = number("grid_offset") + (address - 1) * number("block_size") + at;
    let file = OpenOptions::new().read(true).write(true).open(file);
    let file = file.expect("it is there");
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).expect("it is there");
    file.write_all_at(&[!byte[0]], offset)
        .expect("it can be written");
}

/// A server process; killed when dropped.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    pub(crate) port: u16,
    log: PathBuf,
    /// What there was in it before this process.
    log_before: usize,
}

impl Server {
    /// Starts a server and waits until it accepts connections.
    pub(crate) fn start(file: &Path, port: u16, more: &[&str]) -> Self {
        let mut server = Self::spawn(file, port, more);
        server.wait_ready();
        server
    }

    /// Starts a server, and does not wait for it.
    pub(crate) fn spawn(file: &Path, port: u16, more: &[&str]) -> Self {
        Self::spawn_among(file, &format!("127.0.0.1:{port}"), port, more)
    }

    /// Starts the replica that listens on `port`, one of `addresses`, and does not wait for it.
    fn spawn_among(file: &Path, addresses: &str, port: u16, more: &[&str]) -> Self {
        let log = file.with_extension("log");
        let log_before = fs::read_to_string(&log).map_or(0, |log| log.len());
        let stderr = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .expect("the directory is writable");
        let stdout = stderr.try_clone().expect("a descriptor is left");
        let child = Command::new(BINARY)
            .arg("start")
            .arg(format!("--addresses={addresses}"))
            .args(more)
            .arg(file)
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(stderr)
            .spawn()
            .expect("the binary can be run");
        Self {
            child,
            port,
            log,
            log_before,
        }
    }

    /// Waits until the server answers a ping. A connection alone says nothing: the sockets of one
    /// that was killed just before may accept for a moment longer.
    pub(crate) fn wait_ready(&mut self) {
        let started = Instant::now();
        let mut raw = Raw::new(self.port, 1);
        while raw.ping().is_err() {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                panic!("the server ended with {status}:\n{}", self.log());
            }
            assert!(started.elapsed() < PATIENCE, "no answer:\n{}", self.log());
            thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Everything that servers on this file have printed.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// SIGKILL.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("it is our child");
        let _status = self.child.wait().expect("it is our child");
    }

    /// SIGTERM; gives the status and how long it took.
    pub(crate) fn terminate(mut self) -> (ExitStatus, Duration) {
        let started = Instant::now();
        self.signal("TERM");
        (self.wait(), started.elapsed())
    }

    fn signal(&self, signal: &str) {
        let sent = Command::new("sh")
            .args(["-c", &format!("kill -{signal} {}", self.child.id())])
            .status()
            .expect("there is a shell");
        assert!(sent.success());
    }

    /// Waits for a server that ends by itself.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                return status;
            }
            assert!(
                started.elapsed() < PATIENCE,
                "still running:\n{}",
                self.log()
            );
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Bytes of memory that it holds.
    pub(crate) fn resident(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.expect("the process is there");
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .expect("it has memory");
        let kilobytes = line.split_whitespace().nth(1).expect("a number follows");
        kilobytes.parse::<u64>().expect("it is a number") * 1024
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The processes of a cluster, some of which may be down. There is one cluster at a time: replicas that
/// wait for a processor look dead to each other.
#[derive(Debug)]
pub(crate) struct Cluster {
    servers: Vec<Option<Server>>,
    ports: Vec<u16>,
    /// The first of them are replicas, the others standbys.
    replicas: usize,
    /// What lies between the replicas.
    pub(crate) links: Links,
    /// Arguments of every start.
    arguments: &'static [&'static str],
    directory: Directory,
    _only: MutexGuard<'static, ()>,
}

impl Cluster {
    /// Makes the files of so many replicas, all with these options, and starts all.
    pub(crate) fn start(name: &str, count: usize, format: &[&str]) -> Self {
        // Several share the memory of the machine.
        Self::start_with(name, count, format, &["--limit-memory=1GiB"])
    }

    /// The same, with the arguments for `start`.
    pub(crate) fn start_with(
        name: &str,
        count: usize,
        format: &[&str],
        arguments: &'static [&'static str],
    ) -> Self {
        Self::start_members(name, (count, 0), format, arguments)
    }

    /// Three replicas, and a standby.
    pub(crate) fn start_with_standby(name: &str, format: &[&str]) -> Self {
        Self::start_members(name, (3, 1), format, &["--limit-memory=1GiB"])
    }

    fn start_members(
        name: &str,
        (replicas, standbys): (usize, usize),
        format: &[&str],
        arguments: &'static [&'static str],
    ) -> Self {
        let count = replicas + standbys;
        static ONLY: Mutex<()> = Mutex::new(());
        let only = ONLY.lock().unwrap_or_else(PoisonError::into_inner);
        let directory = Directory::new(name);
        for member in 0..count {
            let file = data_file(&directory, member);
            format_replica(&file, (member, replicas), format);
        }
        let ports: Vec<u16> = (0..count).map(|_| free_port()).collect();
        let mut this = Self {
            servers: (0..count).map(|_| None).collect(),
            links: Links::new(&ports),
            ports,
            replicas,
            arguments,
            directory,
            _only: only,
        };
        this.restart();
        this
    }

    /// Replicas.
    pub(crate) fn count(&self) -> usize {
        self.replicas
    }

    /// Where a member listens.
    pub(crate) fn address(&self, member: usize) -> String {
        format!("127.0.0.1:{}", self.ports[member])
    }

    /// The addresses of the replicas.
    pub(crate) fn addresses(&self) -> Vec<String> {
        let addresses = (0..self.replicas).map(|replica| self.address(replica));
        addresses.collect()
    }

    /// The addresses as a member has them: it reaches the others through links.
    fn addresses_for(&self, replica: usize) -> Vec<String> {
        let address = |other: usize| match other == replica {
            true => self.address(replica),
            false => self.links.address(replica, other),
        };
        (0..self.ports.len()).map(address).collect()
    }

    /// Stops a process, or has it go on.
    pub(crate) fn signal(&self, replica: usize, signal: &str) {
        self.servers[replica]
            .as_ref()
            .expect("it is up")
            .signal(signal);
    }

    /// Starts all that are down, and waits until they answer pings.
    pub(crate) fn restart(&mut self) {
        for replica in 0..self.ports.len() {
            let _started = self.spawn(replica);
        }
        self.servers
            .iter_mut()
            .flatten()
            .for_each(Server::wait_ready);
    }

    /// Starts one, and waits until it answers pings; whether it was down.
    pub(crate) fn restart_one(&mut self, replica: usize) -> bool {
        let started = self.spawn(replica);
        self.servers[replica]
            .as_mut()
            .expect("it is up")
            .wait_ready();
        started
    }

    fn spawn(&mut self, replica: usize) -> bool {
        if self.servers[replica].is_some() {
            return false;
        }
        let addresses = self.addresses_for(replica).join(",");
        let port = self.ports[replica];
        let server = Server::spawn_among(&self.file(replica), &addresses, port, self.arguments);
        self.servers[replica] = Some(server);
        true
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self, replica: usize) {
        self.servers[replica].take().expect("it is up").kill();
    }

    /// The replica's process is killed, if it runs, and its file is gone.
    pub(crate) fn lose(&mut self, replica: usize) {
        drop(self.servers[replica].take());
        fs::remove_file(self.file(replica)).expect("it is there");
    }

    /// A file is made for a member that has none.
    pub(crate) fn format(&self, member: usize, format: &[&str]) {
        format_replica(&self.file(member), (member, self.replicas), format);
    }

    /// What `daftari recover` says for a replica.
    pub(crate) fn recover(&self, replica: usize, more: &[&str]) -> Output {
        let (index, addresses) = (
            format!("--replica={replica}"),
            format!("--addresses={}", self.addresses().join(",")),
        );
        let file = self.file(replica);
        let mut arguments = vec!["recover", "--cluster=0", &index, &addresses];
        arguments.extend_from_slice(more);
        arguments.push(file.to_str().expect("the path is UTF-8"));
        run(&arguments)
    }

    /// Starts all that are down, and waits until they have what the others have: any one may stop now.
    pub(crate) fn restore(&mut self) {
        let down = (0..self.ports.len()).filter(|member| self.servers[*member].is_none());
        let down: Vec<usize> = down.collect();
        self.restart();
        for member in down {
            self.wait_logged(member, "caught up");
        }
    }

    /// Waits until a replica has logged some words since its start.
    pub(crate) fn wait_logged(&self, replica: usize, words: &str) {
        let server = self.servers[replica].as_ref().expect("it is up");
        let started = Instant::now();
        while !server.log()[server.log_before..].contains(words) {
            assert!(
                started.elapsed() < PATIENCE,
                "no '{words}':\n{}",
                server.log()
            );
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Starts a replica that ends by itself; its status, and what it has printed.
    pub(crate) fn start_refused(&self, replica: usize) -> (ExitStatus, String) {
        let addresses = self.addresses_for(replica).join(",");
        let port = self.ports[replica];
        let file = self.file(replica);
        let mut server = Server::spawn_among(&file, &addresses, port, self.arguments);
        (server.wait(), server.log())
    }

    /// The primary of the newest view that a replica has heard of.
    pub(crate) fn primary(&self) -> usize {
        let servers = self.servers.iter().flatten();
        let views = servers.map(|server| view(server.port).expect("it is up"));
        let view = views.max().expect("one is up");
        usize::try_from(view).expect("64 bits") % self.count()
    }

    /// Waits until all that are up have the same checkpoint, and ends them by SIGTERM. Their checkpoints are
    /// the same, byte by byte, and no file is damaged.
    pub(crate) fn terminate(mut self) {
        let started = Instant::now();
        let up: Vec<usize> = (0..self.ports.len())
            .filter(|replica| self.servers[*replica].is_some())
            .collect();
        while let Err(text) = self.compare(&up, &["--live"]) {
            assert!(started.elapsed() < PATIENCE, "{text}");
            thread::sleep(Duration::from_millis(200));
        }
        for server in self.servers.drain(..).flatten() {
            let (status, took) = server.terminate();
            assert!(status.success(), "{status}");
            assert!(took < Duration::from_secs(5), "{took:?}");
        }
        self.compare(&up, &[])
            .expect("the checkpoints are the same");
        for replica in up {
            let file = self.file(replica);
            let output = run(&["inspect", "integrity", file.to_str().expect("UTF-8")]);
            assert!(output.status.success(), "{}", text(&output));
        }
    }

    /// Whether `inspect compare` finds the checkpoints of replicas to be the same; else what it says.
    fn compare(&self, replicas: &[usize], more: &[&str]) -> Result<(), String> {
        let files: Vec<_> = replicas.iter().map(|replica| self.file(*replica)).collect();
        let files = files.iter().map(|file| file.to_str().expect("UTF-8"));
        let arguments = ["inspect", "compare"]
            .into_iter()
            .chain(more.iter().copied());
        let arguments: Vec<&str> = arguments.chain(files).collect();
        let output = run(&arguments);
        let same = output.status.success() && text(&output).contains("identical");
        if same { Ok(()) } else { Err(text(&output)) }
    }

    pub(crate) fn file(&self, replica: usize) -> PathBuf {
        data_file(&self.directory, replica)
    }

    /// What a replica has logged.
    pub(crate) fn log(&self, replica: usize) -> String {
        self.servers[replica].as_ref().expect("it is up").log()
    }
}

fn data_file(directory: &Directory, replica: usize) -> PathBuf {
    directory.file(&format!("{replica}.daftari"))
}

struct Unpark(thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits for `future`, but not for ever.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    let started = Instant::now();
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        assert!(
            started.elapsed() < PATIENCE,
            "no answer within {PATIENCE:?}"
        );
        thread::park_timeout(Duration::from_millis(100));
    }
}

/// Numbers that look random (SplitMix64); the same for the same seed.
#[derive(Clone, Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// Seeded by the variable, or by the clock.
    pub(crate) fn from_environment(variable: &str) -> Self {
        let clock = || {
            let since = SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .expect("it is after 1970");
            u64::from(since.subsec_nanos()) << 32 | u64::from(std::process::id())
        };
        Self(number_from_environment(variable).unwrap_or_else(clock))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

pub(crate) fn number_from_environment(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    Some(
        value
            .parse()
            .unwrap_or_else(|_| panic!("{variable} has to be a number")),
    )
}

/// Plain accounts of ledger 1 with these ids.
pub(crate) fn accounts(ids: impl IntoIterator<Item = u128>) -> Vec<tigerbeetle::Account> {
    let account = |id| tigerbeetle::Account {
        id,
        ledger: 1,
        code: 1,
        ..Default::default()
    };
    ids.into_iter().map(account).collect()
}
