//! Background tasks and the end of the process: every task has a name, a panic in it is logged under
//! that name, and shutting down waits for all of them.
//!
//! This is the only place that spawns. A task that must not end while the server runs (the committer,
//! a listener) is spawned as essential: its end brings the process down instead of leaving it half alive.
//!
//! The order at the end: `leave` (load balancers are warned), `start` (requests hurry), the last request,
//! `requests_done` (the committer, the heartbeat and the hub end), the database closes. What a request waits for
//! therefore never ends before it.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    future::Future,
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::FutureExt as _;
use parking_lot::Mutex;
use tokio::{
    sync::{oneshot, watch},
    task::AbortHandle,
};
use tracing::Instrument as _;

/// What a task is called in the log.
pub type TaskName = Cow<'static, str>;

/// Spawns tasks and knows which of them still run. Clones share the same set.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    running: Arc<Running>,
    shutdown: Shutdown,
}

impl Tasks {
    /// No task runs, and nothing is ending.
    pub fn new() -> Self {
        Self::default()
    }

    /// The handle by which everybody, long polls included, learns that the process is ending.
    pub fn shutdown(&self) -> &Shutdown {
        &self.shutdown
    }

    /// Runs `task` in the background. If it panics, the panic is logged and the others go on.
    pub fn spawn(&self, name: impl Into<TaskName>, task: impl Future<Output = ()> + Send + 'static) {
        self.start(name.into(), task, |_| {});
    }

    /// Runs `work` to its end, also where whoever waits for it goes away, as a client does that hangs up. None if it has
    /// panicked.
    pub async fn see_through<T: Send + 'static>(
        &self,
        name: impl Into<TaskName>,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        let (sender, receiver) = oneshot::channel();
        self.spawn(name, async move {
            if sender.send(work.await).is_err() {
                tracing::debug!("nobody waits any more for what was done");
            }
        });
        receiver.await.ok()
    }

    /// Runs a task without which the server must not run: when it ends before shutdown has started,
    /// by a panic or by returning, shutdown starts and the process exits with an error.
    pub fn spawn_essential(&self, name: impl Into<TaskName>, task: impl Future<Output = ()> + Send + 'static) {
        let name = name.into();
        let (shutdown, essential) = (self.shutdown.clone(), name.clone());
        self.start(name, task, move |outcome| {
            if !shutdown.is_started() {
                shutdown.fail(format!("the task `{essential}` {outcome}"));
            }
        });
    }

    #[expect(clippy::disallowed_methods, reason = "the one place that spawns")]
    fn start(
        &self,
        name: TaskName,
        task: impl Future<Output = ()> + Send + 'static,
        ended: impl FnOnce(&'static str) + Send + 'static,
    ) {
        let entry = Running::enter(&self.running, name.clone());
        let id = entry.id;
        let span = tracing::info_span!(parent: None, "task", %name);
        let task = async move {
            let mut outcome = "has ended";
            if AssertUnwindSafe(task).catch_unwind().await.is_err() {
                outcome = "has panicked";
                tracing::error!(task = %name, "a background task has panicked and is gone");
            }
            ended(outcome);
            drop(entry);
        };
        let handle = tokio::spawn(task.instrument(span)).abort_handle();
        self.running.remember(id, handle);
    }

    /// Ends the tasks that requests needed, since none is left, and waits until all have ended. Those that still run
    /// after `patience` are cut off; their names are returned.
    pub async fn join_all(&self, patience: Duration) -> Vec<TaskName> {
        self.shutdown.0.send_modify(|state| state.requests_done = true);
        let mut count = self.running.count.subscribe();
        let all_ended = count.wait_for(|count| *count == 0);
        if tokio::time::timeout(patience, all_ended).await.is_ok() {
            return Vec::new();
        }
        let left: Vec<_> = std::mem::take(&mut *self.running.tasks.lock()).into_values().collect();
        left.into_iter()
            .map(|task| {
                if let Some(handle) = task.handle {
                    handle.abort();
                }
                task.name
            })
            .collect()
    }
}

#[derive(Debug, Default)]
struct Running {
    next_id: AtomicU64,
    tasks: Mutex<BTreeMap<u64, Task>>,
    /// How many tasks there are, for whoever waits until there are none.
    count: watch::Sender<usize>,
}

/// A task that runs.
#[derive(Debug)]
struct Task {
    name: TaskName,
    /// None for the moment between its entry and its spawn.
    handle: Option<AbortHandle>,
}

impl Running {
    fn enter(running: &Arc<Self>, name: TaskName) -> RunningTask {
        let id = running.next_id.fetch_add(1, Ordering::Relaxed);
        running.tasks.lock().insert(id, Task { name, handle: None });
        running.count.send_modify(|count| *count += 1);
        RunningTask { id, running: running.clone() }
    }

    /// A task that has already ended has no place in the map any more, and none is made for it.
    fn remember(&self, id: u64, handle: AbortHandle) {
        if let Some(task) = self.tasks.lock().get_mut(&id) {
            task.handle = Some(handle);
        }
    }
}

/// A task's place among the running; leaves with the task, however that ends.
struct RunningTask {
    id: u64,
    running: Arc<Running>,
}

impl Drop for RunningTask {
    fn drop(&mut self) {
        self.running.tasks.lock().remove(&self.id);
        self.running.count.send_modify(|count| *count = count.saturating_sub(1));
    }
}

/// Whether the process is ending, and why. Clones share the answer.
///
/// It ends in two steps. At the first, requests in flight (long polls too) hurry to an answer, and
/// whatever they need still runs; at the second no request is left, and everything else ends.
#[derive(Clone, Debug, Default)]
pub struct Shutdown(Arc<watch::Sender<ShutdownState>>);

/// How far the end of the process has come. Each of the three stays once it is set.
#[derive(Clone, Debug, Default)]
struct ShutdownState {
    leaving: bool,
    reason: Option<Reason>,
    requests_done: bool,
}

/// Why the process ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Somebody asked for it; the exit code is 0.
    Asked(String),
    /// The server cannot go on; the exit code is 1.
    Failed(String),
}

impl Shutdown {
    /// Begins to shut down because somebody asked, for instance by a signal.
    pub fn start(&self, because: impl Into<String>) {
        self.begin(Reason::Asked(because.into()));
    }

    /// Has `/ready` report that this node is leaving, so that load balancers send nobody here any more; whoever comes
    /// is still served.
    pub fn leave(&self) {
        self.0.send_modify(|state| state.leaving = true);
    }

    /// Whether nobody new should come.
    pub fn is_leaving(&self) -> bool {
        let state = self.0.borrow();
        state.leaving || state.reason.is_some()
    }

    /// Begins to shut down because the server cannot go on.
    pub fn fail(&self, because: impl Into<String>) {
        self.begin(Reason::Failed(because.into()));
    }

    /// The first reason stands: what follows from it is no news.
    fn begin(&self, reason: Reason) {
        self.0.send_if_modified(|state| {
            let first = state.reason.is_none();
            if first {
                state.reason = Some(reason);
            }
            first
        });
    }

    /// Whether requests have to hurry.
    pub fn is_started(&self) -> bool {
        self.0.borrow().reason.is_some()
    }

    /// Why the process is ending, once it is.
    pub fn find_reason(&self) -> Option<Reason> {
        self.0.borrow().reason.clone()
    }

    /// Returns as soon as shutdown has started, at once if it has already. For whoever answers
    /// requests, and for duties that no request waits for.
    pub async fn started(&self) {
        self.until(|state| state.reason.is_some()).await;
    }

    /// Returns when no request is left. For the tasks that requests need to be answered.
    pub async fn requests_done(&self) {
        self.until(|state| state.requests_done).await;
    }

    async fn until(&self, condition: impl FnMut(&ShutdownState) -> bool) {
        // An error would mean that the sender is gone, and `self` holds it.
        if self.0.subscribe().wait_for(condition).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn a_panic_stays_in_its_task() {
        let tasks = Tasks::new();
        tasks.spawn("bad", async { panic!("on purpose") });
        tasks.spawn("good", async {});

        assert!(tasks.join_all(LONG).await.is_empty());
        assert!(!tasks.shutdown().is_started());
    }

    #[tokio::test]
    async fn what_is_seen_through_ends_although_nobody_waits() {
        let tasks = Tasks::new();
        assert_eq!(tasks.see_through("sum", async { 1 + 1 }).await, Some(2));
        assert_eq!(tasks.see_through::<()>("bad", async { panic!("on purpose") }).await, None);

        let ((go, gone), (sender, receiver)) = (oneshot::channel::<()>(), oneshot::channel());
        let long = tasks.see_through("long", async move { sender.send(gone.await).unwrap() });
        assert!(long.now_or_never().is_none());
        go.send(()).unwrap();
        receiver.await.unwrap().unwrap();
        assert!(tasks.join_all(LONG).await.is_empty());
    }

    #[tokio::test]
    async fn the_end_of_an_essential_task_ends_the_process() {
        let tasks = Tasks::new();
        tasks.spawn_essential("committer", async { panic!("on purpose") });

        tasks.shutdown().started().await;
        assert_eq!(
            tasks.shutdown().find_reason(),
            Some(Reason::Failed("the task `committer` has panicked".to_owned()))
        );
    }

    #[tokio::test]
    async fn an_essential_task_may_end_during_shutdown() {
        let tasks = Tasks::new();
        let shutdown = tasks.shutdown().clone();
        tasks.spawn_essential("listener", async move { shutdown.started().await });

        tasks.shutdown().start("the test asked");
        assert!(tasks.join_all(LONG).await.is_empty());
        assert_eq!(tasks.shutdown().find_reason(), Some(Reason::Asked("the test asked".to_owned())));
    }

    #[tokio::test]
    async fn what_requests_need_outlives_them() {
        let tasks = Tasks::new();
        let shutdown = tasks.shutdown().clone();
        tasks.spawn_essential("committer", async move { shutdown.requests_done().await });

        tasks.shutdown().start("the test asked");
        tokio::task::yield_now().await;
        assert_eq!(tasks.running.tasks.lock().len(), 1);
        assert!(tasks.join_all(LONG).await.is_empty());
    }

    #[tokio::test]
    async fn whoever_does_not_end_is_named_and_cut_off() {
        let tasks = Tasks::new();
        let (alive, mut gone) = tokio::sync::mpsc::channel::<()>(1);
        tasks.spawn("stubborn", async move {
            std::future::pending::<()>().await;
            drop(alive);
        });

        assert_eq!(tasks.join_all(Duration::from_millis(10)).await, ["stubborn"]);
        assert_eq!(gone.recv().await, None);
    }
}
