//! The thread that makes the chain of hashes of a header to come: only at a node that is asked for one.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use bpi_protocol::consensus::header::Header;
use rustix::time::{ClockId, clock_gettime};

use super::metrics::Metrics;
use crate::contents::poh::{self, Rate, Ticker};

/// Between two bursts.
const PAUSE: Duration = Duration::from_millis(1);
/// Ticks of a burst, at most: four times what the default rate gives in a pause, so that a late thread catches up.
const BURST_MIN: u64 = 4_096;

enum Order {
    Begin(Box<Header>),
    Finish(Sender<Ticker>),
    Rest,
}

/// Gives orders to the thread; it ends with this.
#[derive(Debug)]
pub struct Ticking(Sender<Order>);

impl std::fmt::Debug for Order {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Order")
    }
}

impl Ticking {
    /// Starts the thread, which first finds out how fast it could go.
    ///
    /// # Errors
    /// When there can be none.
    pub fn start(rate: Rate, metrics: Arc<Metrics>) -> io::Result<Self> {
        let (orders, given) = channel();
        std::thread::Builder::new().name("poh".to_owned()).spawn(move || {
            measure(rate, &metrics);
            work(rate, &given);
        })?;
        Ok(Self(orders))
    }

    /// Begins the stretch after a final header.
    pub fn begin(&self, parent: &Header) {
        // The thread ends with this value and not before: nothing in it panics.
        let _ = self.0.send(Order::Begin(Box::new(*parent)));
    }

    /// Makes no more ticks.
    pub fn rest(&self) {
        let _ = self.0.send(Order::Rest);
    }

    /// Ends the stretch and gives it out. `None` without one.
    pub fn finish(&self) -> Option<Ticker> {
        let (answer, answered) = channel();
        self.0.send(Order::Finish(answer)).ok()?;
        answered.recv().ok()
    }
}

/// How fast one core could go, by the thread's own time: this machine has other things to do too.
fn measure(rate: Rate, metrics: &Metrics) {
    let capacity = poh::capacity(|| {
        let spent = clock_gettime(ClockId::ThreadCPUTime);
        Duration::new(spent.tv_sec.unsigned_abs(), spent.tv_nsec as u32)
    });
    metrics.poh_rate.set(rate.ticks_per_second as i64);
    metrics.poh_capacity.set(capacity as i64);
    if capacity < 2 * rate.ticks_per_second {
        tracing::warn!(capacity, "one core makes hardly as many ticks a second as the chain may have");
    }
}

fn work(rate: Rate, given: &Receiver<Order>) {
    let burst = BURST_MIN.max(rate.ticks_per_second / 250);
    let mut stretch: Option<(Ticker, Instant)> = None;
    loop {
        let order = match &mut stretch {
            None => given.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some((ticker, began)) => {
                ticker.advance(began.elapsed(), burst);
                given.recv_timeout(PAUSE)
            }
        };
        match order {
            Ok(Order::Begin(parent)) => stretch = Some((Ticker::new(rate, &parent), Instant::now())),
            Ok(Order::Rest) => stretch = None,
            Ok(Order::Finish(answer)) => {
                if let Some((ticker, _)) = stretch.take() {
                    // Who asked may have gone.
                    let _ = answer.send(ticker);
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}
