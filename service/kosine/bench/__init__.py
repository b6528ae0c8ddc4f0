"""`kosine bench`: a client that measures a service from outside, and judges what it answers.

Nothing here reaches into the service: it is started as a process and spoken to over HTTP, so that what is
measured is what a caller gets. The load comes from a process of its own, so that its CPU is told apart.
"""
