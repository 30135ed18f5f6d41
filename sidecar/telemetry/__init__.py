"""One record per delivery: to the log, the metrics, the traces and the list of recent rejections."""
