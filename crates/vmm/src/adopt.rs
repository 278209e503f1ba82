//! Finds VMM processes again that outlived their daemon.

use std::{path::Path, sync::Arc};

use futures::{FutureExt, future::BoxFuture};

use crate::{
    Vm, VmmError,
    firecracker::{Firecracker, FirecrackerVm},
    process::{Process, ProcessRecord},
    qemu::{Qemu, QemuVm},
};

/// Finds a process again that a former daemon started by the driver of this name; `None` when it is gone. The driver need not
/// be the one of this daemon, nor its program be there.
pub fn adopt<'a>(
    driver: &'a str,
    directory: &'a Path,
    record: &'a ProcessRecord,
) -> BoxFuture<'a, Result<Option<Arc<dyn Vm>>, VmmError>> {
    find(driver, directory, record).boxed()
}

async fn find(
    driver: &str,
    directory: &Path,
    record: &ProcessRecord,
) -> Result<Option<Arc<dyn Vm>>, VmmError> {
    let watched = Process::watch(record.clone()).map_err(VmmError::io("watching a VMM process"))?;
    let Some(process) = watched else {
        return Ok(None);
    };
    let adopted = async {
        Ok::<Arc<dyn Vm>, VmmError>(match driver {
            Qemu::NAME => Arc::new(QemuVm::adopt(directory, process.clone()).await?),
            Firecracker::NAME => Arc::new(FirecrackerVm::adopt(directory, process.clone())?),
            other => {
                return Err(VmmError::Unsupported {
                    program: other.into(),
                    cause: "this hearth has no such driver".into(),
                });
            }
        })
    };
    tokio::select! {
        vm = adopted => vm.map(Some),
        () = process.ended() => Ok(None),
    }
}
