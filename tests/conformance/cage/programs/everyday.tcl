# Tcl: random numbers, clocks, events, files, children.
puts "[clock microseconds] [expr rand()] [pid] [info hostname]"
foreach n {3 1 2} { after $n [list puts "after $n"] }
after 6 { set done 1 }
vwait done
puts [glob -directory /work/tree *]
puts [exec sh -c {echo from a child $$}]
file stat /work/tree s
puts "$s(ino) $s(mtime)"
