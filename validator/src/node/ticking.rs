//! The thread that makes the chain of hashes of a header to come: only at a node that is asked for one.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use bpi_protocol::consensus::header::Header;

use crate::contents::poh::{Rate, Ticker};

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
    /// Starts the thread.
    ///
    /// # Errors
    /// When there can be none.
    pub fn start(rate: Rate) -> io::Result<Self> {
        let (orders, given) = channel();
        std::thread::Builder::new().name("poh".to_owned()).spawn(move || work(rate, &given))?;
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
