set -x
cd /project
export QMP_AGENT_VM_READY_TIMEOUT_MS=300000
try() { for m in q35 microvm; do s=$(date +%s.%N); timeout 300 node dist/src/cli/main.js run --machine $m --memory 512M -- true; echo "RESULT $1 $m rc=$? $(echo "$(date +%s.%N) - $s" | bc 2>/dev/null || python3 -c "import time;print(time.time()-$s)")"; done; }
cat /sys/module/kvm_amd/parameters/{vgif,vls,npt,avic} /sys/module/kvm/parameters/halt_poll_ns
try default
rmmod kvm_amd kvm; modprobe kvm halt_poll_ns=0; modprobe kvm_amd vgif=0 vls=0; chmod 666 /dev/kvm
try novgif
rmmod kvm_amd kvm; modprobe kvm; modprobe kvm_amd vgif=0 vls=0; chmod 666 /dev/kvm
try novgif-poll
