//! stub
use std::net::SocketAddr;
use crate::app::{App, StartError};
pub async fn seed(_: &App, _: SocketAddr) -> Result<(), StartError> { Ok(()) }
