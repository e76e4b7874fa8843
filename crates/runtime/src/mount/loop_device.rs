//! Loop devices.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::stat::Mode;
use portlayer::store::StoreError;

use super::failed;

/// A loop device over a file, for as long as it is open or mounted: the kernel frees it after that.
#[derive(Debug)]
pub struct LoopDevice {
    path: PathBuf,
    _device: OwnedFd,
}

impl LoopDevice {
    /// Attaches a free device to a file.
    ///
    /// # Errors
    /// The kernel's.
    pub fn attach(file: &Path) -> Result<LoopDevice, StoreError> {
        let backing = open(file, OFlag::O_RDWR).map_err(|e| failed("open", file, e))?;
        let control_path = Path::new("/dev/loop-control");
        let control =
            open(control_path, OFlag::O_RDWR).map_err(|e| failed("open", control_path, e))?;
        for _ in 0..64 {
            let number = ioctl::get_free(&control)
                .map_err(|e| failed("find a loop device with", control_path, e))?;
            let path = PathBuf::from(format!("/dev/loop{number}"));
            match open(&path, OFlag::O_RDWR) {
                // Without devtmpfs nobody makes the node of a new device.
                Err(Errno::ENOENT) => {
                    let device = nix::sys::stat::makedev(7, u64::from(number));
                    let mode = Mode::S_IRUSR | Mode::S_IWUSR;
                    match nix::sys::stat::mknod(&path, nix::sys::stat::SFlag::S_IFBLK, mode, device)
                    {
                        Ok(()) | Err(Errno::EEXIST) => {}
                        Err(errno) => return Err(failed("make", &path, errno)),
                    }
                }
                Err(errno) => return Err(failed("open", &path, errno)),
                Ok(device) => match ioctl::configure(&device, backing.as_raw_fd()) {
                    Ok(()) => {
                        return Ok(LoopDevice {
                            path,
                            _device: device,
                        });
                    }
                    // Somebody else took it in between.
                    Err(Errno::EBUSY) => {}
                    Err(errno) => return Err(failed("attach", &path, errno)),
                },
            }
        }
        Err(failed("attach a loop device to", file, Errno::EBUSY))
    }

    /// The device's path.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn open(path: &Path, flags: OFlag) -> Result<OwnedFd, Errno> {
    openat(AT_FDCWD, path, flags | OFlag::O_CLOEXEC, Mode::empty())
}

#[allow(
    unsafe_code,
    reason = "the loop driver speaks ioctl only, and nix has no wrapper for it"
)]
mod ioctl {
    use std::os::fd::{AsRawFd, OwnedFd, RawFd};

    use nix::errno::Errno;

    /// struct loop_config of linux/loop.h: fd, block size, struct loop_info64 (232 bytes), eight reserved words.
    #[repr(C)]
    pub(super) struct LoopConfig {
        fd: u32,
        block_size: u32,
        device: u64,
        inode: u64,
        rdevice: u64,
        offset: u64,
        sizelimit: u64,
        number: u32,
        encrypt_type: u32,
        encrypt_key_size: u32,
        flags: u32,
        file_name: [u8; 64],
        crypt_name: [u8; 64],
        encrypt_key: [u8; 32],
        init: [u64; 2],
        reserved: [u64; 8],
    }

    const LO_FLAGS_AUTOCLEAR: u32 = 4;

    nix::ioctl_none_bad!(loop_ctl_get_free, 0x4c82);
    nix::ioctl_write_ptr_bad!(loop_configure, 0x4c0a, LoopConfig);

    pub(super) fn get_free(control: &OwnedFd) -> Result<u32, Errno> {
        // SAFETY: LOOP_CTL_GET_FREE takes no argument and touches no memory of ours.
        let number = unsafe { loop_ctl_get_free(control.as_raw_fd()) }?;
        u32::try_from(number).map_err(|_| Errno::EINVAL)
    }

    pub(super) fn configure(device: &OwnedFd, file: RawFd) -> Result<(), Errno> {
        let config = LoopConfig {
            fd: u32::try_from(file).map_err(|_| Errno::EBADF)?,
            block_size: 0,
            device: 0,
            inode: 0,
            rdevice: 0,
            offset: 0,
            sizelimit: 0,
            number: 0,
            encrypt_type: 0,
            encrypt_key_size: 0,
            flags: LO_FLAGS_AUTOCLEAR,
            file_name: [0; 64],
            crypt_name: [0; 64],
            encrypt_key: [0; 32],
            init: [0; 2],
            reserved: [0; 8],
        };
        // SAFETY: LOOP_CONFIGURE reads one struct loop_config, which LoopConfig mirrors field by field (asserted below).
        unsafe { loop_configure(device.as_raw_fd(), &raw const config) }.map(drop)
    }

    const _: () = assert!(size_of::<LoopConfig>() == 304);
}
