"""What no nightly verdict needs: calibration, power, self-test, exploring topologies."""
