//! Hashing of passwords: argon2id on a bounded pool.
//!
//! One hash takes about 20 ms of a core and 19 MiB. A burst of sign-ins must
//! neither take every core nor all memory, so only a few run at a time, a line
//! of callers waits, and beyond its limit callers are refused at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use argon2::Argon2;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What is verified where there is no account, so that an unknown e-mail takes
/// as long as a wrong password: the parameters of [`Argon2::default`], random
/// salt and output.
const NOBODYS_HASH: &str = "$argon2id$v=19$m=19456,t=2,p=1\
    $Zqv7Yb1uQ0mXy3JtWk9dPg$5o7Gv1sQd0Yp2nUq8hJcT4xLw6mRfZkB3aVeNiXyH9E";

/// About what one hash takes, in milliseconds; only used to tell callers when
/// to come back.
const HASH_ABOUT_MS: usize = 40;

/// Why a password was not hashed or compared.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// Too many wait already; nothing was done.
    #[error("too many sign-ins are waiting")]
    Overloaded {
        /// About when the line will have passed, in seconds.
        retry_after_seconds: u32,
    },
    /// A defect, or a stored hash that isn't one.
    #[error("a password could not be hashed: {0}")]
    Failed(String),
}

/// The pool. Its parameters are those that OWASP names as the minimum for
/// argon2id (m = 19 MiB, t = 2, p = 1), the defaults of the crate.
#[derive(Debug)]
pub struct PasswordPool {
    running: Arc<Semaphore>,
    threads: usize,
    line: AtomicUsize,
    line_max: usize,
}

impl PasswordPool {
    /// A pool that hashes on `threads` threads at a time (at least one) and
    /// lets `line_max` callers wait.
    #[must_use]
    pub fn new(threads: usize, line_max: usize) -> Self {
        let threads = threads.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            running: Arc::new(Semaphore::new(threads)),
            threads,
            line: AtomicUsize::new(0),
            line_max,
        }
    }

    /// The PHC string of `password` with a new salt.
    ///
    /// # Errors
    /// If the line is full.
    pub async fn hash(&self, password: String) -> Result<String, PasswordError> {
        self.run(move || {
            Argon2::default()
                .hash_password(password.as_bytes())
                .map(|phc| phc.to_string())
        })
        .await?
        .map_err(|error| PasswordError::Failed(error.to_string()))
    }

    /// Whether `password` is the one behind the PHC string `phc`. Without one
    /// it isn't, after the same time.
    ///
    /// # Errors
    /// If the line is full, or `phc` isn't a PHC string of argon2.
    pub async fn verify(
        &self,
        password: String,
        phc: Option<String>,
    ) -> Result<bool, PasswordError> {
        use argon2::password_hash::Error;
        let verified = self
            .run(move || {
                let known = phc.is_some();
                let phc = phc.as_deref().unwrap_or(NOBODYS_HASH);
                Argon2::default()
                    .verify_password(password.as_bytes(), phc)
                    .map(|()| known)
            })
            .await?;
        match verified {
            Err(Error::PasswordInvalid) => Ok(false),
            other => other.map_err(|error| PasswordError::Failed(error.to_string())),
        }
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, PasswordError> {
        let permit = self.permit().await?;
        let task = tokio::task::spawn_blocking(move || {
            // Held by the work itself: a caller who hangs up frees nothing
            // while the hash still runs.
            let _permit = permit;
            work()
        });
        task.await
            .map_err(|error| PasswordError::Failed(error.to_string()))
    }

    async fn permit(&self) -> Result<OwnedSemaphorePermit, PasswordError> {
        if let Ok(permit) = Arc::clone(&self.running).try_acquire_owned() {
            return Ok(permit);
        }
        let place = Place::take(&self.line, self.line_max).ok_or(PasswordError::Overloaded {
            retry_after_seconds: self.passes_in_seconds(),
        })?;
        let permit = Arc::clone(&self.running).acquire_owned().await;
        drop(place);
        permit.map_err(|closed| PasswordError::Failed(closed.to_string()))
    }

    fn passes_in_seconds(&self) -> u32 {
        let ms = self.line_max.saturating_mul(HASH_ABOUT_MS) / self.threads;
        u32::try_from(ms.div_ceil(1000)).unwrap_or(u32::MAX).max(1)
    }
}

/// A place in the line, given back when dropped.
struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    fn take(line: &'a AtomicUsize, max: usize) -> Option<Self> {
        line.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| {
            (n < max).then_some(n + 1)
        })
        .ok()
        .map(|_| Self(line))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn a_password_verifies_against_its_own_hash_only() {
        let pool = PasswordPool::new(2, 8);
        let phc = pool.hash("correct horse".into()).await.unwrap();
        assert!(phc.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{phc}");
        assert_ne!(pool.hash("correct horse".into()).await.unwrap(), phc);
        assert!(
            pool.verify("correct horse".into(), Some(phc.clone()))
                .await
                .unwrap()
        );
        assert!(!pool.verify("wrong horse".into(), Some(phc)).await.unwrap());
    }

    #[tokio::test]
    async fn without_an_account_a_password_is_wrong_by_the_same_work() {
        let pool = PasswordPool::new(1, 8);
        assert!(!pool.verify("correct horse".into(), None).await.unwrap());
        let ours = pool.hash("x".into()).await.unwrap();
        let parameters = |phc: &str| phc.rsplitn(3, '$').last().map(str::to_owned);
        assert_eq!(parameters(NOBODYS_HASH), parameters(&ours));
        assert_eq!(NOBODYS_HASH.len(), ours.len());
    }

    #[tokio::test]
    async fn what_is_no_hash_is_an_error_and_not_a_wrong_password() {
        let pool = PasswordPool::new(1, 8);
        let verified = pool.verify("x".into(), Some(String::new())).await;
        assert!(matches!(verified, Err(PasswordError::Failed(_))));
    }

    #[tokio::test]
    async fn beyond_its_line_the_pool_refuses_at_once_and_recovers() {
        let pool = Arc::new(PasswordPool::new(1, 2));
        let (finish, wait) = mpsc::sync_channel::<()>(1);
        let running = Arc::clone(&pool);
        let running = tokio::spawn(async move { running.run(move || wait.recv()).await.map(drop) });
        while pool.running.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        let waiting: Vec<_> = (0..2)
            .map(|_| {
                let pool = Arc::clone(&pool);
                tokio::spawn(async move { pool.run(|| ()).await })
            })
            .collect();
        while pool.line.load(Ordering::Relaxed) < 2 {
            tokio::task::yield_now().await;
        }
        let refused = pool.run(|| ()).await;
        assert!(matches!(
            refused,
            Err(PasswordError::Overloaded {
                retry_after_seconds: 1
            })
        ));
        finish.send(()).unwrap();
        running.await.unwrap().unwrap();
        for caller in waiting {
            caller.await.unwrap().unwrap();
        }
        assert!(pool.run(|| ()).await.is_ok());
        assert_eq!(pool.line.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn a_caller_who_leaves_the_line_gives_the_place_back() {
        let pool = Arc::new(PasswordPool::new(1, 1));
        let held = pool.permit().await.unwrap();
        let waiting = Arc::clone(&pool);
        let waiting = tokio::spawn(async move { waiting.run(|| ()).await });
        while pool.line.load(Ordering::Relaxed) < 1 {
            tokio::task::yield_now().await;
        }
        waiting.abort();
        let _ = waiting.await;
        assert_eq!(pool.line.load(Ordering::Relaxed), 0);
        drop(held);
        assert!(pool.run(|| ()).await.is_ok());
    }
}
