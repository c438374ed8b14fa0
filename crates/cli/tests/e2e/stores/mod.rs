//! Every kind of staging storage, at real servers.

mod crossing;
mod faults;
mod kill;
mod refusals;
