//! `constellation run`.

use super::access::environment;
use super::arguments::Global;
use super::exit::{Exit, Failure};
use crate::config::Config;
use crate::daemon::serve_until_signalled;

pub(super) async fn run(global: &Global) -> Result<Exit, Failure> {
    let config = global.load_config()?;
    let (file, named) = global.config_file()?;
    let station = global.open_to_run(&config).await?;
    if let Err(error) = station.start_graph().await {
        station.close().await;
        return Err(error.into());
    }
    let relay = match station.start_relay(&config) {
        Ok(relay) => relay,
        Err(error) => {
            station.close().await;
            return Err(error.into());
        }
    };
    if let Err(error) = station.start_tunnels(&config, Some(&relay)).await {
        station.close().await;
        return Err(error.into());
    }
    if let Err(error) = station.start_reporting().await {
        station.close().await;
        return Err(error.into());
    }
    if let Err(error) = station.start_astroport() {
        station.close().await;
        return Err(error.into());
    }
    if let Err(error) = station.start_live(&relay) {
        station.close().await;
        return Err(error.into());
    }
    tracing::info!(
        relay = %format!("ws://{}", relay.address()), peer_id = station.peer_id(),
        "station started"
    );
    let reload = || Config::load(&file, named, environment());
    let served = serve_until_signalled(&station, &config, &relay, reload).await;
    tracing::info!("station is stopping");
    station.close().await;
    served.map_err(Failure::local)?;
    Ok(Exit::Done)
}
