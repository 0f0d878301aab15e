//! Obtains Evidence from the platform: configfs-tsm, /dev/sev-guest or the simulator.
