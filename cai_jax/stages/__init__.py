"""The steps of a run: functions of files. The only layer that reads a workdir or the config."""
