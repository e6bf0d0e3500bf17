//! What one rendering may still make and read.
//!
//! Values are counted references, so what a rendering holds is never more than what it has made. Every operator, filter,
//! method and print pays here for the bytes it reads and makes before it goes on; so both the memory and the time of a
//! rendering have a bound, whatever the template does. The account belongs to the thread: helpers deep below a filter
//! have no state at hand, and a rendering never leaves its thread.

use std::cell::RefCell;
use std::sync::Arc;

use minijinja::{Error, ErrorKind};

/// What one item of a list or mapping costs, in bytes.
pub(super) const ITEM: usize = 32;
/// How much is paid between two looks at the clock.
const LOOK: u64 = 1 << 20;

/// Tells that the time is up.
pub type Expired = Arc<dyn Fn() -> bool + Send + Sync>;

struct Account {
    left: u64,
    until_look: u64,
    expired: Option<Expired>,
}

thread_local! {
    static ACCOUNT: RefCell<Option<Account>> = const { RefCell::new(None) };
}

/// Keeps the account open; closes it when dropped.
pub(in crate::domain::render) struct Meter;

impl Meter {
    /// Opens an account for one rendering on this thread.
    pub(in crate::domain::render) fn open(bytes: u64, expired: Option<Expired>) -> Self {
        ACCOUNT.set(Some(Account {
            left: bytes,
            until_look: LOOK,
            expired,
        }));
        Self
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        ACCOUNT.set(None);
    }
}

/// The word in an error that says which limit it was.
pub(in crate::domain::render) const MEMORY: &str = "memory";
/// The same for the time.
pub(in crate::domain::render) const TIME: &str = "time";

/// Pays for bytes that are read or made; fails when nothing is left, or when the time is up.
pub(super) fn spend(bytes: usize) -> Result<(), Error> {
    ACCOUNT.with_borrow_mut(|account| {
        // Without an account nothing is rendered: a constant is folded, or a test calls a filter by itself.
        let Some(account) = account else {
            return Ok(());
        };
        // The 8 stand for the call itself.
        let bytes = bytes as u64 + 8;
        let Some(left) = account.left.checked_sub(bytes) else {
            // Nothing after this may succeed, also where an error means "not there".
            account.left = 0;
            return Err(Error::new(ErrorKind::OutOfFuel, MEMORY));
        };
        account.left = left;
        if account.until_look > bytes {
            account.until_look -= bytes;
            return Ok(());
        }
        account.until_look = LOOK;
        match &account.expired {
            Some(expired) if expired() => Err(Error::new(ErrorKind::OutOfFuel, TIME)),
            _ => Ok(()),
        }
    })
}

/// Pays for that many items of a list or mapping.
pub(super) fn spend_items(count: usize) -> Result<(), Error> {
    spend(count.saturating_mul(ITEM))
}
