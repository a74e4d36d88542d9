//! Our own side: keys, registration, push name.

use async_trait::async_trait;
use whatsapp_rust::wacore::stats::StorageResourceReport;
use whatsapp_rust::wacore::store::Device;
use whatsapp_rust::wacore::store::error::Result;
use whatsapp_rust::wacore::store::traits::DeviceStore;

use super::{Kind, ONLY, Store};

/// The rows are one session's, so the device needs no number to be told apart; the protocol asks for one.
const DEVICE_ID: i32 = 1;

#[async_trait]
impl DeviceStore for Store {
    async fn save(&self, device: &Device) -> Result<()> {
        self.put(vec![Kind::Device.json(ONLY, device)?]).await
    }

    async fn load(&self) -> Result<Option<Device>> {
        self.get_json(Kind::Device, ONLY).await
    }

    async fn exists(&self) -> Result<bool> {
        Ok(self.get(Kind::Device, ONLY).await?.is_some())
    }

    async fn create(&self) -> Result<i32> {
        self.save(&Device::new()).await?;
        Ok(DEVICE_ID)
    }

    async fn resource_report(&self) -> StorageResourceReport {
        StorageResourceReport {
            memory_bytes: Some(0),
            ..StorageResourceReport::default()
        }
    }
}
