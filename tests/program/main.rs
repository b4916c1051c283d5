//! The program as people use it: commands, recipes, messages, reports, and a run that is watched.

mod cli;
mod handling;
mod newcomers;
mod recipes;
mod report;
mod reproduce;
#[path = "../support/mod.rs"]
mod support;
mod watching;
