# The Debian virtual machine.

vm_test() { say "skipped: vm, because it is not written yet"; }
