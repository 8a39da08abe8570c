fn main() {
    let numbers: Vec<u64> = std::env::args().skip(1).filter_map(|word| word.parse().ok()).collect();
    println!("{}", serde_json::json!({"numbers": numbers, "sum": numbers.iter().sum::<u64>()}));
}
