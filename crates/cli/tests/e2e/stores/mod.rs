//! Every kind of staging storage, at real servers.

mod crossing;
mod cuts;
mod faults;
mod kill;
mod refusals;
