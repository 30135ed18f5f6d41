"""The running program: start, reload, worker processes, and a shutdown that loses no delivery.

serve            binds the listeners and runs the program
program          the main process: admin listener, signals, shutdown
drain_socket, drain_listener   `sidecar drain`: how it finds the main process, and the server there
reload           replaces the configuration while the program runs
ip_ranges        keeps providers' published networks current
data_processes   where deliveries are handled: in this process, or in several
data_plane       the data listener and everything after it, in one process
supervisor       starts the workers, restarts those that exit, passes them the configuration
worker, channel  a worker process, and how it and its parent talk
"""
