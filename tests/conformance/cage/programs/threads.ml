(* OCaml: threads, random numbers, hashes, clocks, garbage. *)
let log = Buffer.create 1000
let lock = Mutex.create ()
let work me =
  for step = 1 to 200 do
    Mutex.lock lock;
    Buffer.add_string log (string_of_int me);
    Mutex.unlock lock;
    if step mod 50 = me then Thread.delay 0.0005 else if step mod 20 = 0 then Thread.yield ();
    ignore (Array.make 5000 step)
  done
let () =
  Random.self_init ();
  Printf.printf "%d %f %d\n" (Random.bits ()) (Unix.gettimeofday ()) (Unix.getpid ());
  let threads = List.init 5 (Thread.create work) in
  List.iter Thread.join threads;
  print_endline (Buffer.contents log);
  Array.iter print_endline (Sys.readdir "/work/tree");
  let table = Hashtbl.create ~random:true 10 in
  List.iter (fun n -> Hashtbl.add table (string_of_int n) n) [ 1; 2; 3; 4; 5; 6; 7; 8 ];
  Hashtbl.iter (fun key _ -> print_string key) table;
  Printf.printf "\n%d collections\n" (Gc.quick_stat ()).Gc.minor_collections
