#!/bin/sh
# Installing a package must not start its service: there is no init system in a container.
exit 101
