//! stub
use crate::app::{App, StartError};
use std::net::SocketAddr;
pub async fn seed(_: &App, _: SocketAddr) -> Result<(), StartError> {
    Ok(())
}
