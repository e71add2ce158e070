//! What is exposed and open, as last changed: for everyone who asks without changing anything.
//!
//! Takes the table after each change; gives where a service is, for each stream that comes in, and what `tunnel ls`
//! shows. Never changed, only replaced: who asks waits for nobody.

use std::collections::BTreeSet;

use super::mouth::MouthView;
use super::options::ExposedOptions;
use super::status::{ExposedStatus, ServicesStatus};
use super::table::{Exposure, Places, Table};
use crate::peer::PeerId;
use crate::tunnel::{CarrierState, ServiceName};

/// What is exposed and open.
#[derive(Debug, Default)]
pub(super) struct Published {
    exposed: Vec<(ExposedStatus, Exposure)>,
    mouths: Vec<MouthView>,
}

impl Published {
    pub(super) fn new(table: &Table, exposed: &[(ExposedOptions, bool)], places: &Places) -> Self {
        let place = |(options, configured): &(ExposedOptions, bool)| {
            let shown = table.shown(options, *configured, places);
            Some((shown, places.of(options)?))
        };
        Self {
            exposed: exposed.iter().filter_map(place).collect(),
            mouths: table.mouths.iter().map(|mouth| mouth.view()).collect(),
        }
    }

    /// Where a service is; `None`: it is not exposed.
    pub(super) fn exposure(&self, name: &ServiceName) -> Option<Exposure> {
        let mut exposed = self.exposed.iter();
        exposed
            .find(|(shown, _)| shown.name == *name)
            .map(|(_, exposure)| *exposure)
    }

    pub(super) fn stations(&self) -> BTreeSet<PeerId> {
        self.mouths.iter().map(|mouth| mouth.peer).collect()
    }

    pub(super) fn status(&self, carrier: &CarrierState) -> ServicesStatus {
        ServicesStatus {
            exposed: self
                .exposed
                .iter()
                .map(|(shown, _)| shown.clone())
                .collect(),
            open: self
                .mouths
                .iter()
                .map(|mouth| mouth.status(carrier))
                .collect(),
        }
    }
}
