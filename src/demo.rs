//! `--demo`: something to look at and to buy, made once.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::app::{App, StartError};
use crate::catalogue::{Caller, CatalogueError, demo};
use crate::domain::coupon::{Command, Discount, Terms};
use crate::domain::ids::{CouponId, UserId};
use crate::domain::roles::{Role, Roles};
use crate::domain::time::Millis;

/// The demo's coupon.
const COUPON: CouponId = CouponId(uuid::uuid!("018f0000-0000-7000-8000-00000000c0de"));

/// The password of all demo accounts.
const PASSWORD: &str = "demo-password";

/// An account a role.
const ACCOUNTS: [(&str, &str, Role); 4] = [
    ("buyer@demo.example", "Bora Buyer", Role::Customer),
    ("staff@demo.example", "Sun Staff", Role::Staff),
    ("organizer@demo.example", "Ora Organizer", Role::Organizer),
    ("admin@demo.example", "Ada Admin", Role::Admin),
];

/// Makes the demo's venues, performances and accounts, unless they are there,
/// and says how to sign in.
///
/// # Errors
/// If the store refuses.
pub async fn seed(app: &Arc<App>, local: SocketAddr) -> Result<(), StartError> {
    let failed = |what: &dyn std::fmt::Display| StartError::Other(format!("the demo: {what}"));
    let mut owner = None;
    for (email, name, role) in ACCOUNTS {
        let roles = Roles::CUSTOMER.with(role);
        let person = [(email.to_owned(), name.to_owned())];
        let made = app.accounts.create_bulk(&person, PASSWORD, roles).await;
        let users = made.map_err(|error| failed(&error))?;
        if role == Role::Organizer {
            owner = users.first().copied();
        }
    }
    if let Some(user) = owner {
        make_performances(
            app,
            Caller {
                user,
                is_admin: false,
            },
        )
        .await
        .map_err(|error| failed(&error))?;
    }
    if let Some(user) = owner {
        make_coupon(app, user)
            .await
            .map_err(|error| failed(&error))?;
    }
    explain(local);
    Ok(())
}

/// One, whose id makes it once: a second start finds what the first one made.
async fn make_coupon(app: &Arc<App>, owner: UserId) -> Result<(), String> {
    let now = app.clock.now();
    let terms = Terms {
        name: "Opening week: 10 % off".to_owned(),
        discount: Discount::Percent(10),
        stock: 1_000,
        starts_at: now,
        ends_at: now.plus(Millis::from_secs(60 * 86_400)),
        performance: None,
        owner,
        created_at: now,
    };
    let made = app.node.coupons.ask(COUPON.0, Command::Create(terms)).await;
    match made {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(refusal)) => Err(format!("{refusal:?}")),
        Err(error) => Err(error.to_string()),
    }
}

/// The keys make it once: a second start finds what the first one made.
async fn make_performances(app: &Arc<App>, caller: Caller) -> Result<(), CatalogueError> {
    let now = app.clock.now();
    let demo::Venues { arena, theatre } = demo::venues();
    let key = |name: &str| Some(format!("demo-{name}"));
    let catalogue = &app.catalogue;
    let arena = catalogue
        .create_venue(caller, &arena, key("arena"), now)
        .await?
        .value
        .id;
    let theatre = catalogue
        .create_venue(caller, &theatre, key("theatre"), now)
        .await?
        .value
        .id;
    for (index, request) in demo::performances(arena, theatre, now)
        .into_iter()
        .enumerate()
    {
        let key = key(&format!("performance-{index}"));
        let made = catalogue
            .create_performance(caller, request, key, now)
            .await?;
        for timetable in &made.value.timetables {
            app.plan_changed(timetable.row.id);
        }
    }
    Ok(())
}

#[allow(
    clippy::print_stdout,
    reason = "what the program says to who started it"
)]
fn explain(local: SocketAddr) {
    println!("demo accounts, all with the password {PASSWORD}:");
    for (email, _, role) in ACCOUNTS {
        println!("  {:<10} {email}", format!("{role:?}").to_lowercase());
    }
    println!("storefront http://{local}/  API http://{local}/docs");
}
