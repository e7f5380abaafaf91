"""From records to the page of claims."""

from alexnet_repro.startup import prepare

prepare()  # the scripts' streams
