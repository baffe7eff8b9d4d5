//! stub
pub async fn run(_: &crate::config::Config) -> i32 { 2 }
